"""Graphs of other libraries and JSON objects as `RawGraph`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_graph.graph import RawGraph

_MISNAMED = {
    **dict.fromkeys(("features", "node_features", "node_attr", "attributes", "feat"), "x"),
    **dict.fromkeys(("edge_features", "edge_feat", "edge_attributes", "weights"), "edge_attr"),
    **dict.fromkeys(("node_label", "categories"), "node_labels"),
}
"""What other programs call a graph's parts: not to be passed over in silence."""

Columns = tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...], tuple[str, ...]]


def columns_of(rows: Sequence[Mapping[str, Any]], what: str) -> Columns:
    """Attribute dictionaries, one a node or edge, as `split_columns` has them."""
    names = set().union(*rows) if rows else set()
    return split_columns({name: [row.get(name) for row in rows] for name in names}, len(rows), what)


def split_columns(columns: Mapping[str, Sequence[Any]], rows: int, what: str) -> Columns:
    """Columns as numbers and as categories, in the order of their names.

    Numbers and lists of numbers become float32 columns, strings become categories. Returns
    (attributes `[n, A]` or None, labels `[n, L]` or None, their two tuples of names). Raises
    `CorruptSample` where a value is missing (None) or of another kind than the others.
    """
    numbers: list[np.ndarray] = []
    categories: list[np.ndarray] = []
    number_names: list[str] = []
    category_names: list[str] = []
    for name, values in sorted(columns.items()):
        missing = next((i for i, value in enumerate(values) if value is None), None)
        if missing is not None:
            raise CorruptSample(f"{what} {missing} has no {name!r}, though others have")
        if rows and all(isinstance(value, str) for value in values):
            categories.append(np.array(values, dtype=object)[:, None])
            category_names.append(name)
            continue
        try:
            block = np.array(values, dtype=np.float32).reshape(rows, -1 if rows else 1)
        except (TypeError, ValueError) as error:
            raise CorruptSample(f"{what} attribute {name!r} mixes kinds or lengths") from error
        numbers.append(block)
        width = block.shape[1]
        number_names += [name] if width == 1 else [f"{name}.{i}" for i in range(width)]
    return (
        np.concatenate(numbers, axis=1) if numbers else None,
        np.concatenate(categories, axis=1) if categories else None,
        tuple(number_names),
        tuple(category_names),
    )


def from_networkx(graph: Any) -> RawGraph:
    """A NetworkX graph (also multi- and directed graphs); node names become 0..N-1 in order."""
    row = {node: i for i, node in enumerate(graph.nodes)}
    attributes, labels, names, label_names = columns_of(
        [values for _, values in graph.nodes(data=True)], "node"
    )
    listed = list(graph.edges(data=True))
    ends = [(row[a], row[b]) for a, b, _ in listed]
    edge_attributes, edge_labels, *_ = columns_of([values for _, _, values in listed], "edge")
    return RawGraph(
        len(row),
        np.array(ends, dtype=np.int64).reshape(-1, 2),
        attributes,
        labels,
        edge_attributes,
        edge_labels,
        names,
        label_names,
        directed=bool(graph.is_directed()),
    )


def from_pyg(data: Any) -> RawGraph:
    """A PyTorch Geometric `Data` with `x` as attributes."""

    def array(value: Any) -> np.ndarray | None:
        if value is None:
            return None
        out: np.ndarray = value.detach().cpu().float().numpy()
        return out[:, None] if out.ndim == 1 else out

    edges = data.edge_index.detach().cpu().numpy().T.astype(np.int64)
    return RawGraph(
        int(data.num_nodes), edges, array(data.x), edge_attributes=array(data.edge_attr)
    )


def _table(value: Any, rows: int, what: str) -> np.ndarray:
    """A JSON list (of numbers, strings, or lists of them) as an array `[rows, columns]`."""
    if not isinstance(value, list) or len(value) != rows:
        length = len(value) if isinstance(value, list) else type(value).__name__
        raise CorruptSample(f"{what}: expected a list of {rows}, got {length}")
    listed = [entry if isinstance(entry, list) else [entry] for entry in value]
    if len({len(entry) for entry in listed}) > 1:
        raise CorruptSample(f"{what}: its rows have different lengths")
    return np.array(listed, dtype=object).reshape(rows, -1)


def _numbers(value: Any, rows: int, what: str) -> np.ndarray:
    try:
        return _table(value, rows, what).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise CorruptSample(f"{what}: not numbers only") from error


def _categories(value: Any, rows: int, what: str) -> np.ndarray:
    table = _table(value, rows, what)
    if not all(isinstance(entry, (str, int)) for entry in table.flat):
        raise CorruptSample(f"{what}: categories must be strings or whole numbers")
    return table


def from_json(item: Any, *, directed: bool = False) -> RawGraph:
    """A JSON object as a graph; local node ids start at 0.

    Taken keys: `num_nodes`; `edges` (pairs) or `edge_index` (two lists); `x` (or `node_feat`),
    `node_labels`, `edge_attr`, `edge_labels`. NetworkX's node-link objects (`nodes` and `edges`
    or `links`) are understood too. Raises `CorruptSample` on anything else.
    """
    if not isinstance(item, dict):
        raise CorruptSample(f"expected a JSON object for a graph, got {type(item).__name__}")
    if "nodes" in item:
        return _from_node_link(item)
    for name, meant in _MISNAMED.items():
        if name in item:
            raise CorruptSample(f"{name!r} is not read; write it as {meant!r}")
    edges = _edges(item)
    x = item.get("x", item.get("node_feat"))
    labels = item.get("node_labels")
    known = next((len(v) for v in (x, labels) if isinstance(v, list)), None)
    nodes = item.get("num_nodes", known)
    if isinstance(nodes, list) and len(nodes) == 1:  # as exported by some dataset hubs
        nodes = nodes[0]
    if nodes is None:
        nodes = int(edges.max(initial=-1)) + 1
    if not isinstance(nodes, int) or nodes < 0:
        raise CorruptSample(f"num_nodes: expected a whole number >= 0, got {nodes!r}")
    count = len(edges)
    weights, kinds = item.get("edge_attr"), item.get("edge_labels")
    return RawGraph(
        nodes,
        edges,
        None if x is None else _numbers(x, nodes, "x"),
        None if labels is None else _categories(labels, nodes, "node_labels"),
        None if weights is None else _numbers(weights, count, "edge_attr"),
        None if kinds is None else _categories(kinds, count, "edge_labels"),
        directed=bool(item.get("directed", directed)),
    )


def _edges(item: Mapping[str, Any]) -> np.ndarray:
    if "edges" not in item and "edge_index" not in item:
        raise CorruptSample("a graph needs 'edges' or 'edge_index'")
    try:
        if "edges" in item:
            edges = np.array(item["edges"]).reshape(-1, 2)
        else:
            edges = np.array(item["edge_index"]).reshape(2, -1).T
    except ValueError as error:
        raise CorruptSample("edges: expected pairs of node ids") from error
    if len(edges) and not np.issubdtype(edges.dtype, np.integer):
        raise CorruptSample(f"edges: node ids must be whole numbers, got {edges.dtype}")
    return edges.astype(np.int64)


def _from_node_link(item: Mapping[str, Any]) -> RawGraph:
    import networkx as nx  # type: ignore[import-untyped]

    def endpoint(edge: Mapping[str, Any], which: str) -> Hashable:
        if which not in edge:
            raise CorruptSample(f"an edge has no {which!r}")
        value: Hashable = edge[which]
        return value

    graph = nx.DiGraph() if item.get("directed") else nx.Graph()
    for i, node in enumerate(item["nodes"]):
        values = dict(node)
        graph.add_node(values.pop("id", i), **values)
    for edge in item.get("edges", item.get("links", [])):
        values = dict(edge)
        a, b = endpoint(edge, "source"), endpoint(edge, "target")
        for key in ("source", "target", "key"):
            values.pop(key, None)
        if a not in graph or b not in graph:
            raise CorruptSample(f"edge {a!r}-{b!r} names a node that is not in 'nodes'")
        graph.add_edge(a, b, **values)
    return from_networkx(graph)
