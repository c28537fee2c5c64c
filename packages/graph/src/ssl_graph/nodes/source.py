"""Nodes as records: a `NodeTable` (one graph with labels a node) and the source over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_core.batch import Record
from ssl_core.data.heads import digest
from ssl_core.data.labels import encode_labels, label_of
from ssl_core.errors import UserError
from ssl_graph.graph import RawGraph

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class NodeTable:
    """One graph, with what is known of each node.

    `labels` is one label a node (None where unknown) or None; `split` (int8 `[N]`) is the public
    division: 0, 1, 2 for `PARTS`, -1 for nodes in none; `names` are the file's own node ids.
    """

    graph: RawGraph
    labels: Sequence[Any] | None = None
    split: np.ndarray | None = None
    names: Sequence[str] | None = None
    name: str = "node"

    def __post_init__(self) -> None:
        for what in ("labels", "split", "names"):
            given = getattr(self, what)
            if given is not None and len(given) != self.graph.num_nodes:
                raise UserError(
                    f"data: {len(given)} {what} for {self.graph.num_nodes} nodes of {self.name!r}"
                )


@dataclass(frozen=True, slots=True)
class RawNode:
    """What a record of a node source carries: the table and the row."""

    table: NodeTable
    node: int


class NodeSource:
    """The nodes of one graph, in its order; `Record.meta["part"]` names the public split's part.

    The part is not `meta["split"]`: learning without labels uses every node, and only an
    evaluation needs the public split.
    """

    def __init__(self, table: NodeTable) -> None:
        if table.graph.num_nodes == 0:
            raise UserError(f"data: the graph {table.name!r} has no nodes")
        self.table = table
        self._label, self._classes = encode_labels(table.labels or ())

    def __len__(self) -> int:
        return self.table.graph.num_nodes

    @property
    def classes(self) -> Sequence[str] | None:
        return self._classes

    def __getitem__(self, index: int) -> Record:
        head = self.head(range(len(self))[index])
        return Record(head.key, RawNode(self.table, index % len(self)), head.label, head.meta)

    def head(self, index: int) -> Record:
        """Key, label and meta."""
        names, split = self.table.names, self.table.split
        own = str(index) if names is None else names[index]
        part = -1 if split is None else int(split[index])
        meta = {} if part < 0 else {"part": PARTS[part]}
        return Record(f"{self.table.name}/{own}", None, label_of(self._label, index), meta)

    @property
    def public(self) -> dict[str, np.ndarray] | None:
        """Rows of each part of the split that the data came with, if any."""
        split = self.table.split
        if split is None:
            return None
        return {part: np.flatnonzero(split == i) for i, part in enumerate(PARTS)}

    def fingerprint(self) -> str:
        """Names, sizes and edges."""
        graph = self.table.graph
        edges = np.ascontiguousarray(graph.edges)
        return digest([self.table.name, graph.num_nodes, edges.tobytes()])


def training_labels(table: NodeTable) -> np.ndarray:
    """Labels of the public split's training nodes, int64 `[N]`, -1 elsewhere.

    Raises `UserError` where the table has no labels or no split: labels of nodes that will be
    scored must never be looked at.
    """
    if table.labels is None or table.split is None:
        raise UserError(f"data.options.use_labels: {table.name!r} has no labels with a split")
    labels, _ = encode_labels(table.labels)
    if labels is None:
        raise UserError(f"data.options.use_labels: {table.name!r} has no labels")
    return np.where(table.split == PARTS.index("train"), labels, -1)
