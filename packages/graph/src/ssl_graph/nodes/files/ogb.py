"""The CSV layout of the Open Graph Benchmark's node data sets (Hu et al., NeurIPS 2020).

`raw/edge.csv.gz` (source, target), `raw/num-node-list.csv.gz`, and where there are any
`raw/node-feat.csv.gz`, `raw/node-label.csv.gz`, `raw/edge-feat.csv.gz`; `split/SCHEME/` holds
`train.csv.gz`, `valid.csv.gz` and `test.csv.gz` with rows. Files may also be unpacked `.csv`.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_graph.graph import RawGraph
from ssl_graph.nodes.source import NodeTable


def is_ogb(folder: Path) -> bool:
    """Whether `folder` holds `raw/edge.csv` and `raw/num-node-list.csv`, packed or not."""
    return all(_found(folder / "raw" / what) for what in ("edge", "num-node-list"))


def _found(stem: Path) -> Path | None:
    for suffix in (".csv.gz", ".csv"):
        path = stem.with_name(stem.name + suffix)
        if path.is_file():
            return path
    return None


def _columns(stem: Path, dtype: type) -> np.ndarray | None:
    """A table of numbers `[rows, columns]`, or None where there is no such file."""
    path = _found(stem)
    if path is None:
        return None
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:  # type: ignore[operator]
            values: np.ndarray = np.loadtxt(file, dtype=np.float64, delimiter=",", ndmin=2)
    except (ValueError, OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"data.path: {path} cannot be read as columns: {error}") from error
    if np.issubdtype(dtype, np.integer) and (values != np.floor(values)).any():
        raise UserError(f"data.path: {path} must hold whole numbers")
    return values.astype(dtype)


def read_ogb(folder: Path, *, split: str | None = None) -> NodeTable:
    """The table of a folder; `split` names the scheme where there are several.

    Missing labels (NaN) become None. Raises `UserError` where tables do not fit together.
    """
    edges = _columns(folder / "raw" / "edge", np.int64)
    sizes = _columns(folder / "raw" / "num-node-list", np.int64)
    if edges is None or sizes is None or edges.shape[1] != 2:
        raise UserError(f"data.path: {str(folder)!r} needs raw/edge.csv.gz with two columns")
    if sizes.size != 1:
        raise UserError(f"data.path: {str(folder)!r} holds {sizes.size} graphs, not one big graph")
    count = int(sizes[0, 0])
    x = _columns(folder / "raw" / "node-feat", np.float32)
    kinds = _columns(folder / "raw" / "edge-feat", np.float32)
    y = _columns(folder / "raw" / "node-label", np.float64)
    for what, values, rows in (("node-feat", x, count), ("edge-feat", kinds, len(edges))):
        if values is not None and len(values) != rows:
            raise UserError(f"data.path: {what} has {len(values)} rows, expected {rows}")
    if y is not None and y.shape[1] != 1:
        raise UserError(f"data.path: node-label has {y.shape[1]} columns; one class a node is read")
    graph = RawGraph(count, edges, x, edge_attributes=kinds)
    labels = None if y is None else [None if np.isnan(v) else int(v) for v in y[:, 0]]
    return NodeTable(graph, labels, _split(folder, split, count), name=folder.name)


def _split(folder: Path, scheme: str | None, count: int) -> np.ndarray | None:
    schemes = sorted(p.name for p in (folder / "split").glob("*") if p.is_dir())
    if scheme is not None and scheme not in schemes:
        raise UserError(f"data.options.split: {scheme!r} is not one of {schemes}")
    if not schemes or (scheme is None and len(schemes) > 1):
        if schemes:
            raise UserError(f"data.options.split: choose one of {schemes}")
        return None
    split = np.full(count, -1, dtype=np.int8)
    for number, part in enumerate(("train", "valid", "test")):
        rows = _columns(folder / "split" / (scheme or schemes[0]) / part, np.int64)
        if rows is None:
            raise UserError(f"data.path: split {scheme or schemes[0]!r} has no {part}.csv.gz")
        if len(rows) and (rows.min() < 0 or rows.max() >= count):
            raise UserError(f"data.path: {part}.csv.gz names rows outside 0..{count - 1}")
        split[rows[:, 0]] = number
    return split
