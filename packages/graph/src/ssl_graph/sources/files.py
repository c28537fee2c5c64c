"""One file, one graph (or, for GraphML, several): GraphML, GML, JSON and edge lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import PurePath

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_graph.graph import RawGraph
from ssl_graph.sources.convert import from_json, from_networkx

_HEADER = {"source", "target", "src", "dst", "from", "to", "u", "v"}


def parse_edge_list(text: str) -> RawGraph:
    """Lines `a b [weight ...]`, separated by blanks, tabs or commas.

    Node names are any strings and become 0..N-1 in the order they appear; a line with one name
    adds an isolated node; text after `#` or `%` is a comment. Further columns are edge
    attributes. Raises `CorruptSample` naming the line.
    """
    row: dict[str, int] = {}
    ends: list[tuple[int, int]] = []
    weights: list[list[float]] = []
    first = True
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split("#")[0].split("%")[0].replace(",", " ").split()
        if not parts:
            continue
        if first and len(parts) > 1 and {parts[0].lower(), parts[1].lower()} <= _HEADER:
            first = False
            continue
        first = False
        nodes = [row.setdefault(name, len(row)) for name in parts[:2]]
        if len(nodes) == 1:
            continue
        try:
            values = [float(part) for part in parts[2:]]
        except ValueError as error:
            raise CorruptSample(f"line {number}: {parts[2:]} are not numbers") from error
        if weights and len(values) != len(weights[0]):
            raise CorruptSample(
                f"line {number}: {len(values)} edge attributes, "
                f"earlier lines have {len(weights[0])}"
            )
        ends.append((nodes[0], nodes[1]))
        weights.append(values)
    attributes = np.array(weights, dtype=np.float32) if weights and weights[0] else None
    edges = np.array(ends, dtype=np.int64).reshape(-1, 2)
    return RawGraph(len(row), edges, edge_attributes=attributes)


def parse_graphml(data: bytes) -> list[RawGraph]:
    """Every graph of a GraphML document; typed keys become attributes, ids become 0..N-1."""
    import io
    from xml.etree.ElementTree import ParseError

    import networkx as nx  # type: ignore[import-untyped]
    from networkx.readwrite.graphml import GraphMLReader  # type: ignore[import-untyped]

    try:
        graphs = list(GraphMLReader()(path=io.BytesIO(data)))
    except (ParseError, nx.NetworkXError, KeyError, ValueError) as error:
        raise CorruptSample(f"not valid GraphML: {error}") from error
    if not graphs:
        raise CorruptSample("GraphML without a <graph>")
    return [from_networkx(graph) for graph in graphs]


def _one_graphml(data: bytes) -> RawGraph:
    graphs = parse_graphml(data)
    if len(graphs) > 1:
        raise CorruptSample(f"holds {len(graphs)} graphs; in a folder a file is one graph")
    return graphs[0]


def _gml(data: bytes) -> RawGraph:
    import networkx as nx

    try:
        return from_networkx(nx.parse_gml(_text(data).splitlines(), label="id"))
    except (nx.NetworkXError, ValueError, KeyError) as error:
        raise CorruptSample(f"not valid GML: {error}") from error


def _json(data: bytes) -> RawGraph:
    try:
        return from_json(json.loads(_text(data)))
    except json.JSONDecodeError as error:
        raise CorruptSample(f"not valid JSON: {error}") from error


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptSample(f"not UTF-8 text: byte {error.start}") from error


def _edge_list(data: bytes) -> RawGraph:
    return parse_edge_list(_text(data))


PARSERS: dict[str, Callable[[bytes], RawGraph]] = {
    ".graphml": _one_graphml,
    ".gml": _gml,
    ".json": _json,
    ".edges": _edge_list,
    ".edgelist": _edge_list,
    ".txt": _edge_list,
    ".csv": _edge_list,
    ".tsv": _edge_list,
}
"""What reads a file of one graph, by suffix."""


def parse_file(name: str, data: bytes) -> RawGraph:
    """The graph in a file called `name`; raises `CorruptSample` with the reason."""
    suffix = PurePath(name).suffix.lower()
    if suffix not in PARSERS:
        raise CorruptSample(f"no graph format has the suffix {suffix!r}")
    return PARSERS[suffix](data)
