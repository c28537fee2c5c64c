"""One graph from a graph file, NetworkX or PyTorch Geometric as a `NodeTable`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample, UserError
from ssl_graph.graph import Graph, RawGraph
from ssl_graph.nodes.files.tables import read_edge_table
from ssl_graph.nodes.source import NodeTable
from ssl_graph.sources.convert import from_pyg
from ssl_graph.sources.files import parse_file
from ssl_graph.sources.memory import to_raw
from ssl_graph.sources.pyg_file import load_pyg

_LABELS = ("label", "class", "y", "target", "club")


def table_of(graph: Any, *, name: str = "node", target: str | None = None) -> NodeTable:
    """A graph object as a table.

    The label of a node is the attribute `target` (by default the first of `_LABELS`) of NetworkX
    and file formats, `y` and the masks of PyG data.
    """
    if hasattr(graph, "edge_index") and not isinstance(graph, Graph):
        return _from_pyg(graph, name)
    raw = to_raw(graph)
    if isinstance(raw, Graph):
        raise UserError("graphs: give a node table a raw graph, not an encoded one")
    return _with_target(raw, name, target)


def read_graph_file(path: Path, *, target: str | None = None) -> NodeTable:
    """A file with one graph: GraphML, GML, JSON, edge list, Parquet table of edges."""
    if path.suffix.lower() == ".parquet":
        return NodeTable(read_edge_table(path), name=path.stem)
    try:
        return _with_target(parse_file(path.name, path.read_bytes()), path.stem, target)
    except CorruptSample as error:
        raise UserError(f"data.path: {str(path)!r}: {error}") from error


def _with_target(raw: RawGraph, name: str, target: str | None) -> NodeTable:
    """Takes the label's column out of the features."""
    wanted = _LABELS if target is None else (target,)
    for kind, names in (("labels", raw.label_names), ("attributes", raw.attribute_names)):
        values = getattr(raw, kind)
        column = next((names.index(w) for w in wanted if w in names), None)
        if column is None or values is None:
            continue
        labels = values[:, column].tolist()
        rest = np.delete(values, column, axis=1)
        left = tuple(n for i, n in enumerate(names) if i != column)
        changed = {kind: rest if rest.shape[1] else None, f"{kind[:-1]}_names": left}
        return NodeTable(replace(raw, **changed), labels, name=name)
    if target is not None:
        has = [*raw.label_names, *raw.attribute_names]
        raise UserError(f"data.options.target: nodes have no {target!r}; they have {has}")
    return NodeTable(raw, name=name)


def _from_pyg(data: Any, name: str) -> NodeTable:
    raw = from_pyg(data)
    y = getattr(data, "y", None)
    labels = None
    if y is not None and y.shape[0] == raw.num_nodes and y.numel() == raw.num_nodes:
        labels = y.reshape(-1).tolist()
    split = None
    for number, part in enumerate(("train_mask", "val_mask", "test_mask")):
        mask = getattr(data, part, None)
        if mask is None:
            continue
        mask = mask[:, 0] if mask.dim() == 2 else mask  # several splits: the first
        split = np.full(raw.num_nodes, -1, dtype=np.int8) if split is None else split
        split[mask.cpu().numpy().astype(bool)] = number
    return NodeTable(raw, labels, split, name=name)


def read_pyg(path: Path) -> NodeTable:
    """The one graph of a PyG data set on disk; `UserError` where it holds several."""
    stored = load_pyg(path)
    if stored.count > 1:
        raise UserError(
            f"data.path: {str(path)!r} holds {stored.count} graphs; set data.options.level to graph"
        )
    return _from_pyg(stored.graph(0), stored.name)
