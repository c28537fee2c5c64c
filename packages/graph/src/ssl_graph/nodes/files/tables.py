"""A folder with a table of nodes and a table of edges: CSV, TSV or Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.data.labels import SPLITS
from ssl_core.data.manifest import LABEL_COLUMNS, read_table
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import atomic_write
from ssl_graph.graph import RawGraph
from ssl_graph.nodes.source import PARTS, NodeTable
from ssl_graph.sources.convert import Columns, split_columns

_ID = ("id", "node", "node_id", "name")
_ENDS = (("source", "src", "from", "u", "head"), ("target", "dst", "to", "v", "tail"))
_SUFFIXES = (".csv", ".tsv", ".parquet")


def table_paths(folder: Path) -> tuple[Path | None, Path | None]:
    """`nodes.*` and `edges.*` of a folder, each None where missing."""

    def found(stem: str) -> Path | None:
        paths = (folder / f"{stem}{suffix}" for suffix in _SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    return found("nodes"), found("edges")


def read_tables(folder: Path) -> NodeTable:
    """Nodes in the order of their table, edges by node ids.

    `nodes` needs a column of unique ids (`id`, `node`, ...); `label` (or `class`, ...) and
    `split` are taken out; of the others, numbers become attributes and words categories. `edges`
    needs `source` and `target`; further columns are edge features. Raises `UserError` naming the
    table and row of an id that is unknown or met twice.
    """
    nodes_path, edges_path = table_paths(folder)
    if nodes_path is None or edges_path is None:
        raise UserError(f"data.path: {str(folder)!r} needs nodes.csv and edges.csv (or .parquet)")
    nodes, edges = read_table(nodes_path), read_table(edges_path)
    names = [str(value) for value in _taken(nodes, _ID, nodes_path)]
    row = {name: i for i, name in enumerate(names)}
    if len(row) < len(names):
        twice = next(name for i, name in enumerate(names) if row[name] != i)
        raise UserError(f"data: {nodes_path} has the node {twice!r} twice")
    label_column = next((c for c in nodes if c.lower() in LABEL_COLUMNS), None)
    labels = None if label_column is None else nodes.pop(label_column)
    split_column = next((c for c in nodes if c.lower() == "split"), None)
    split = None if split_column is None else _parts(nodes.pop(split_column), nodes_path)
    ends = [_rows(_taken(edges, wanted, edges_path), row, edges_path) for wanted in _ENDS]
    pairs = np.stack(ends, axis=1)
    try:
        attributes, categories, number_names, category_names = _features(nodes, len(names), "node")
        edge_numbers, edge_kinds, *_ = _features(edges, len(pairs), "edge")
    except CorruptSample as error:
        raise UserError(f"data: {folder}: {error}") from error
    graph = RawGraph(
        len(names),
        pairs,
        attributes,
        categories,
        edge_numbers,
        edge_kinds,
        number_names,
        category_names,
    )
    return NodeTable(graph, labels, split, names, folder.name)


def read_edge_table(path: Path) -> RawGraph:
    """A table of edges alone: its nodes are the ids it names, in the order they appear.

    Raises `UserError` for a row without an end and for features that do not fit.
    """
    table = read_table(path)
    ends = [_taken(table, wanted, path) for wanted in _ENDS]
    pairs = list(zip(*ends, strict=True))
    gap = next((i for i, pair in enumerate(pairs) if None in pair or "" in pair), None)
    if gap is not None:
        raise UserError(f"data: edge {gap + 1} of {path} lacks one of its two nodes")
    row = {name: i for i, name in enumerate(dict.fromkeys(str(v) for pair in pairs for v in pair))}
    edges = np.array([[row[str(v)] for v in pair] for pair in pairs], dtype=np.int64)
    try:
        numbers, kinds, *_ = _features(table, len(pairs), "edge")
    except CorruptSample as error:
        raise UserError(f"data: {path}: {error}") from error
    edges = edges.reshape(-1, 2)
    return RawGraph(len(row), edges, edge_attributes=numbers, edge_labels=kinds)


def write_tables(folder: Path, table: NodeTable) -> None:
    """Writes `nodes.csv` and `edges.csv` that `read_tables` understands; classes as words."""
    graph = table.graph
    wide = 0 if graph.attributes is None else graph.attributes.shape[1]
    header = ["id", *(f"x{i:03d}" for i in range(wide)), "label", "split"]
    lines = [",".join(header)]
    for node in range(graph.num_nodes):
        values = [] if graph.attributes is None else graph.attributes[node].tolist()
        label = "" if table.labels is None else table.labels[node]
        part = -1 if table.split is None else int(table.split[node])
        cells = [node, *(f"{v:g}" for v in values), label, "" if part < 0 else PARTS[part]]
        lines.append(",".join(map(str, cells)))
    edges = ["source,target", *(f"{a},{b}" for a, b in graph.edges.tolist())]
    atomic_write(folder / "nodes.csv", "\n".join(lines) + "\n")
    atomic_write(folder / "edges.csv", "\n".join(edges) + "\n")


def _taken(table: dict[str, Sequence[Any]], wanted: Sequence[str], path: Path) -> Sequence[Any]:
    """The column called one of `wanted`, removed from the table."""
    found = next((column for column in table if column.lower() in wanted), None)
    if found is None:
        raise UserError(f"data: {path} has no column {wanted[0]!r}; it has {list(table)}")
    return table.pop(found)


def _rows(ids: Sequence[Any], row: Mapping[str, int], path: Path) -> np.ndarray:
    """The rows of node ids, int64 `[E]`."""
    found = [row.get(str(value), -1) for value in ids]
    if -1 in found:
        edge = found.index(-1)
        raise UserError(f"data: edge {edge + 1} of {path} names {ids[edge]!r}, no node")
    return np.array(found, dtype=np.int64)


def _features(table: Mapping[str, Sequence[Any]], rows: int, what: str) -> Columns:
    columns = {name: _numbers(values, f"{what} column {name!r}") for name, values in table.items()}
    return split_columns(columns, rows, what)


def _numbers(values: Sequence[Any], where: str) -> Sequence[Any]:
    """Words that are all numbers as numbers, empty ones as missing; anything else as it is.

    Raises `CorruptSample` where at most a tenth are no numbers: as categories, such a column
    would have one for every number.
    """
    found = [_number(value) for value in values]
    words = [i for i, cell in enumerate(found) if cell is not None and not isinstance(cell, float)]
    if not words:
        return found
    if 10 * len(words) <= len(values):
        raise CorruptSample(
            f"{where} is numbers but for {len(words)}, the first of them {values[words[0]]!r} in "
            f"row {words[0] + 1}; mend them, leave the column out, or make words of all"
        )
    return values


def _number(value: Any) -> Any:
    """A cell as a number, None where it is empty, itself where it is a word."""
    if value in (None, ""):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _parts(values: Sequence[Any], path: Path) -> np.ndarray:
    split = np.full(len(values), -1, dtype=np.int8)
    for i, value in enumerate(values):
        if value in (None, ""):
            continue
        part = SPLITS.get(str(value).lower())
        if part is None:
            raise UserError(
                f"data: row {i + 1} of {path} has split {value!r}; use train, val, test"
            )
        split[i] = PARTS.index(part)
    return split
