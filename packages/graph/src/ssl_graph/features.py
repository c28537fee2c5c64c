"""From a `RawGraph` to tensors: clean edges, and node features by a schema fitted on the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
import torch

from ssl_core.errors import CorruptSample, UserError, unknown
from ssl_graph.graph import Graph, RawGraph
from ssl_graph.positions import laplacian_positions, return_probabilities

FEATURES = ("given", "degree", "random_walk", "laplacian")
"""What node features may be made of, joined by "+", and in which order they stand."""


def check_edges(edges: np.ndarray, count: int) -> None:
    """Raises `CorruptSample` for an edge `[E, 2]` between nodes that are not there."""
    if len(edges) and (edges.min() < 0 or edges.max() >= count):
        row = int(np.flatnonzero(((edges < 0) | (edges >= count)).any(axis=1))[0])
        raise CorruptSample(
            f"edge {row} joins {edges[row, 0]} and {edges[row, 1]}, "
            f"but node ids must lie in 0..{count - 1}"
        )


def check_encoded(graph: Graph) -> None:
    """Raises `CorruptSample` where a graph that came as tensors is not what `Graph` promises."""
    if graph.num_nodes < 1:
        raise CorruptSample("a graph without nodes")
    ends = graph.edge_index
    if ends.dim() != 2 or len(ends) != 2 or ends.dtype != torch.int64:
        raise CorruptSample(
            f"edge_index must be int64 [2, E], got {ends.dtype} {tuple(ends.shape)}"
        )
    check_edges(ends.T.cpu().numpy(), graph.num_nodes)
    for name, values in (("x", graph.x), ("edge_attr", graph.edge_attr)):
        if values is not None and not bool(values.isfinite().all()):
            raise CorruptSample(f"{name}: not all values are finite")


def usual_layout(graphs: Sequence[RawGraph]) -> list[RawGraph]:
    """The graphs that have the commonest columns; the odd ones out are corrupt samples later.

    Graphs without edges cannot say which edge attributes they would have; they stay.
    """
    nodes = [_widths(raw.attributes, raw.labels, raw.attribute_names) for raw in graphs]
    edges = [
        _widths(raw.edge_attributes, raw.edge_labels, ()) if len(raw.edges) else None
        for raw in graphs
    ]
    node = Counter(nodes).most_common(1)[0][0]
    told = [
        kind for own, kind in zip(nodes, edges, strict=True) if own == node and kind is not None
    ]
    edge = Counter(told).most_common(1)[0][0] if told else None
    return [
        raw
        for raw, own, kind in zip(graphs, nodes, edges, strict=True)
        if own == node and kind in (None, edge)
    ]


def _widths(
    numbers: np.ndarray | None, categories: np.ndarray | None, names: tuple[str, ...]
) -> tuple[int, int, tuple[str, ...]]:
    """Columns of numbers, columns of categories, names."""
    return (
        0 if numbers is None else numbers.shape[1],
        0 if categories is None else categories.shape[1],
        names,
    )


def simple_edges(raw: RawGraph, *, directed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Edges without self-loops and duplicates, sorted by (source, target).

    Undirected graphs get both directions, whichever the file listed. Returns int64 `[2, E]` and,
    int64 `[E]`, the row of `raw.edges` each came from (the first of duplicates), which is where
    its attributes are. Raises `CorruptSample` for ids outside the graph.
    """
    edges = raw.edges
    check_edges(edges, raw.num_nodes)
    origin = np.arange(len(edges))
    if not directed:
        edges = np.concatenate([edges, edges[:, ::-1]])
        origin = np.concatenate([origin, origin])
    proper = edges[:, 0] != edges[:, 1]
    edges, origin = edges[proper], origin[proper]
    _, first = np.unique(edges[:, 0] * max(raw.num_nodes, 1) + edges[:, 1], return_index=True)
    return np.ascontiguousarray(edges[first].T), origin[first]


class SchemaOptions(TypedDict, total=False):
    """What readers pass on to `Schema.measure`, which has the defaults."""

    features: str
    directed: bool
    degree_cap: int
    positions: int
    standardize: bool


def oddities(graphs: Sequence[RawGraph]) -> dict[str, int]:
    """What `simple_edges` takes away, and the nodes without an edge, over all graphs.

    An edge is repeated where it stands in one direction more than once; both directions of an
    undirected one are no repetition.
    """
    loops = repeated = isolated = 0
    for raw in graphs:
        proper = raw.edges[raw.edges[:, 0] != raw.edges[:, 1]]
        loops += len(raw.edges) - len(proper)
        codes = proper[:, 0] * max(raw.num_nodes, 1) + proper[:, 1]
        repeated += len(codes) - len(np.unique(codes))
        isolated += raw.num_nodes - len(np.unique(proper))
    return {"self-loops": loops, "repeated edges": repeated, "nodes without an edge": isolated}


def _one_hot(labels: np.ndarray, vocabularies: Sequence[Sequence[Any]]) -> np.ndarray:
    """Categories `[n, L]` as one-hot blocks side by side; a category never seen is a zero row."""
    blocks = []
    for column, vocabulary in enumerate(vocabularies):
        place = {value: i for i, value in enumerate(vocabulary)}
        block = np.zeros((len(labels), len(vocabulary) + 1), dtype=np.float32)
        where = [place.get(value, len(vocabulary)) for value in labels[:, column].tolist()]
        block[np.arange(len(labels)), where] = 1
        blocks.append(block[:, :-1])
    return np.concatenate(blocks, axis=1)


def _vocabularies(tables: Sequence[np.ndarray | None]) -> list[list[Any]]:
    """The sorted categories of each column over all graphs."""
    present = [table for table in tables if table is not None]
    columns = max((table.shape[1] for table in present), default=0)
    return [
        sorted(
            {v for table in present for v in table[:, c].tolist()}, key=lambda v: (str(type(v)), v)
        )
        for c in range(columns)
    ]


def _parts(kind: str) -> list[str]:
    """The parts of a kind, in the order of `FEATURES`."""
    asked = [part.strip() for part in kind.split("+")]
    for part in asked:
        if part not in FEATURES:
            raise unknown("data.options.features", part, ("auto", *FEATURES))
    return [part for part in FEATURES if part in asked]


@dataclass(frozen=True)
class Schema:
    """What the node and edge features of a data set are; JSON in, JSON out.

    x = [standardised attributes | one-hot labels | one-hot degree | random-walk return
    probabilities | Laplacian eigenvectors], those that `kind` names (`FEATURES` joined by "+").
    Attributes are standardised by `mean` and `std`; degrees at or above `degree_cap` share the last
    column; `positions` is the width of each of the last two. "encoded" is the kind of graphs that
    come as tensors, of which nothing else is known.
    """

    kind: str
    directed: bool = False
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    attribute_names: tuple[str, ...] = ()
    labels: list[list[Any]] = field(default_factory=list)
    label_names: tuple[str, ...] = ()
    degree_cap: int = 0
    edge_mean: list[float] = field(default_factory=list)
    edge_std: list[float] = field(default_factory=list)
    edge_labels: list[list[Any]] = field(default_factory=list)
    positions: int = 0

    @classmethod
    def measure(
        cls,
        graphs: Sequence[RawGraph],
        *,
        features: str = "auto",
        directed: bool = False,
        degree_cap: int = 50,
        positions: int = 8,
        standardize: bool = True,
    ) -> Schema:
        """The schema of a data set, from (a sample of) its training graphs.

        "auto" takes the given attributes and labels, and the degree where there are none. Raises
        `UserError` for an unknown kind, and where nothing is given that should be.
        """
        given = any(g.attributes is not None or g.labels is not None for g in graphs)
        if features == "auto":
            features = "given" if given else "degree"
        parts = _parts(features)
        if "given" in parts and not given:
            raise UserError(
                f"data.options.features: {features!r}, but the nodes have no attributes or labels; "
                f"use {', '.join(map(repr, FEATURES[1:]))}"
            )
        for name, value in (("degree_cap", degree_cap), ("positions", positions)):
            if value < 1:
                raise UserError(f"data.options.{name}: must be at least 1, got {value}")
        degrees = [np.bincount(simple_edges(g, directed=directed)[0][0]) for g in graphs]
        largest = max((int(d.max(initial=0)) for d in degrees), default=0)
        mean, std = _moments([g.attributes for g in graphs], standardize)
        edge_mean, edge_std = _moments([g.edge_attributes for g in graphs], standardize)
        return cls(
            "+".join(parts),
            directed,
            mean,
            std,
            next((g.attribute_names for g in graphs if g.attribute_names), ()),
            _vocabularies([g.labels for g in graphs]),
            next((g.label_names for g in graphs if g.label_names), ()),
            max(1, min(largest, degree_cap)),
            edge_mean,
            edge_std,
            _vocabularies([g.edge_labels for g in graphs]),
            positions,
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Schema:
        """The inverse of `to_json`."""
        names = {k: tuple(values[k]) for k in ("attribute_names", "label_names")}
        return cls(**{**values, **names})

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers."""
        return {
            **asdict(self),
            "attribute_names": list(self.attribute_names),
            "label_names": list(self.label_names),
        }

    @property
    def widths(self) -> dict[str, int]:
        """Columns of each part of `Graph.x`, in their order."""
        known = {
            "given": len(self.mean) + sum(map(len, self.labels)),
            "degree": self.degree_cap + 1,
            "random_walk": self.positions,
            "laplacian": self.positions,
            "encoded": 0,
        }
        return {part: known[part] for part in self.kind.split("+")}

    @property
    def node_dim(self) -> int:
        """F, the width of `Graph.x`."""
        return sum(self.widths.values())

    @property
    def categories(self) -> list[list[int]]:
        """[start, stop] of each one-hot block among the columns of `Graph.x`."""
        widths = self.widths
        blocks = [len(values) for values in self.labels] if "given" in widths else []
        blocks += [widths["degree"]] if "degree" in widths else []
        first = len(self.mean) if "given" in widths else 0
        stops = np.cumsum([first, *blocks]).tolist()
        return [[start, stop] for start, stop in pairwise(stops)]

    @property
    def signs(self) -> tuple[int, int] | None:
        """(start, stop) of the columns whose signs mean nothing, or None."""
        width = self.widths.get("laplacian")
        return None if width is None else (self.node_dim - width, self.node_dim)

    @property
    def edge_dim(self) -> int:
        """D, the width of `Graph.edge_attr`; 0 for none."""
        return len(self.edge_mean) + sum(map(len, self.edge_labels))

    def encode(self, raw: RawGraph) -> Graph:
        """The graph as tensors; raises `CorruptSample` where it does not fit the schema."""
        if self.kind == "encoded":
            raise CorruptSample("not encoded, though the graphs of the training data were")
        if raw.num_nodes < 1:
            raise CorruptSample("a graph without nodes")
        self._check_names(raw)
        edges, origin = simple_edges(raw, directed=self.directed)
        blocks = []
        for part in self.widths:
            if part == "given":
                blocks += _blocks(
                    *(raw.attributes, raw.labels, raw.num_nodes),
                    *(self.mean, self.std, self.labels, "node"),
                )
            elif part == "degree":
                degree = np.bincount(edges[0], minlength=raw.num_nodes).clip(max=self.degree_cap)
                blocks.append(np.eye(self.degree_cap + 1, dtype=np.float32)[degree])
            elif part == "random_walk":
                blocks.append(return_probabilities(edges, raw.num_nodes, steps=self.positions))
            else:
                blocks.append(laplacian_positions(edges, raw.num_nodes, width=self.positions))
        edge_blocks = _blocks(
            *(raw.edge_attributes, raw.edge_labels, len(raw.edges)),
            *(self.edge_mean, self.edge_std, self.edge_labels, "edge"),
        )
        edge_attr = None
        if edge_blocks:
            edge_attr = torch.from_numpy(np.concatenate(edge_blocks, axis=1)[origin])
        x = torch.from_numpy(np.concatenate(blocks, axis=1))
        return Graph(x, torch.from_numpy(edges), edge_attr)

    def _check_names(self, raw: RawGraph) -> None:
        """Same columns in the same order; silent reordering would mix up features."""
        if "given" not in self.widths:
            return
        for have, want in (
            (raw.attribute_names, self.attribute_names),
            (raw.label_names, self.label_names),
        ):
            if have != want:
                raise CorruptSample(f"node attributes {list(have)}, others have {list(want)}")


def _moments(
    tables: Sequence[np.ndarray | None], standardize: bool
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each attribute column over all graphs ([] for none)."""
    present = [table for table in tables if table is not None and len(table)]
    if not present:
        return [], []
    if len({table.shape[1] for table in present}) > 1:
        widths = sorted({table.shape[1] for table in present})
        raise UserError(f"data: graphs have different numbers of attributes: {widths}")
    values = np.concatenate(present).astype(np.float64)
    if not standardize:
        return [0.0] * values.shape[1], [1.0] * values.shape[1]
    values = values[np.isfinite(values).all(axis=1)]
    std = values.std(axis=0)
    return values.mean(axis=0).tolist(), np.where(std > 0, std, 1.0).tolist()


def _blocks(
    attributes: np.ndarray | None,
    labels: np.ndarray | None,
    rows: int,
    mean: list[float],
    std: list[float],
    vocabularies: list[list[Any]],
    what: str,
) -> list[np.ndarray]:
    """Standardised attributes and one-hot labels, each float32 `[rows, width]`."""
    blocks = []
    for values, width, kind in (
        (attributes, len(mean), "attributes"),
        (labels, len(vocabularies), "labels"),
    ):
        have = 0 if values is None else values.shape[1]
        if have != width and not (rows == 0 and values is None):
            raise CorruptSample(f"{have} {what} {kind}, the other graphs have {width}")
    if mean:
        table = np.zeros((0, len(mean))) if attributes is None else attributes
        wrong = np.argwhere(~np.isfinite(table))
        if len(wrong):
            row, column = wrong[0]
            raise CorruptSample(
                f"{what} attributes are not all finite: {what} {row} has {table[row, column]} in "
                f"column {column} (both counted from 0)"
            )
        blocks.append(((table - np.array(mean)) / np.array(std)).astype(np.float32))
    if vocabularies:
        blocks.append(
            _one_hot(np.zeros((0, len(vocabularies))) if labels is None else labels, vocabularies)
        )
    return blocks
