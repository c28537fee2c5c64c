"""The TU format: one folder of text files for a whole collection (Morris et al. 2020).

`DS_A.txt` lists edges as pairs of global node ids that start at 1; `DS_graph_indicator.txt` holds
the graph of each node; `DS_graph_labels.txt` one label a graph. Optional: `DS_node_labels`,
`DS_node_attributes`, `DS_edge_labels`, `DS_edge_attributes`, `DS_graph_attributes` (targets).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_core.batch import Record
from ssl_core.data.heads import digest
from ssl_core.errors import UserError, unknown
from ssl_graph.graph import RawGraph
from ssl_graph.sources.columns import read_columns


def tu_names(folder: Path) -> list[str]:
    """The collections `DS` for which `folder` holds `DS_A.txt`."""
    return sorted(path.name.removesuffix("_A.txt") for path in folder.glob("*_A.txt"))


class TUFolder:
    """A folder in TU format as a source of `RawGraph` payloads.

    All files are read once, into arrays; a record is a slice of them. Labels become 0..C-1 in
    the order of their values. Raises `UserError` naming the file (and line) on anything that
    does not fit together.
    """

    def __init__(self, folder: Path, *, name: str | None = None, directed: bool = False) -> None:
        names = tu_names(folder)
        if not names:
            raise UserError(f"data.path: {str(folder)!r} holds no TU collection (no *_A.txt)")
        if name is None and len(names) > 1:
            raise UserError(
                f"data.path: {str(folder)!r} holds several TU collections ({', '.join(names)}); "
                "choose one with data.options.name"
            )
        if name is not None and name not in names:
            raise unknown("data.options.name", name, names)
        self.folder = folder
        self.name = name or names[0]
        self.directed = directed
        self._read_nodes()
        self._read_edges()
        self._read_targets()

    def _file(self, what: str) -> Path:
        return self.folder / f"{self.name}_{what}.txt"

    def _optional(self, what: str, dtype: type, rows: int, of: str) -> np.ndarray | None:
        """The columns of an optional file that must have one line for each of `rows` things."""
        path = self._file(what)
        if not path.exists():
            return None
        values = read_columns(path, dtype=dtype)
        if len(values) != rows:
            raise UserError(f"{path}: has {len(values)} lines, but {of} has {rows}")
        return values

    def _read_nodes(self) -> None:
        path = self._file("graph_indicator")
        if not path.exists():
            raise UserError(f"{path} is missing; a TU folder needs it beside {self.name}_A.txt")
        indicator = read_columns(path, dtype=np.int64, columns=1)[:, 0]
        if len(indicator) == 0:
            raise UserError(f"{path}: is empty; it must hold the graph id of every node")
        self.graph_ids, graph_of = np.unique(indicator, return_inverse=True)
        # Nodes of one graph are usually, but not always, listed together.
        order = np.argsort(graph_of, kind="stable")
        self._graph_of = graph_of
        self._start = np.concatenate([[0], np.cumsum(np.bincount(graph_of))])
        self._local = np.empty_like(order)
        self._local[order] = np.arange(len(order)) - self._start[graph_of[order]]
        self._order = order
        nodes = len(indicator)
        self._labels = self._optional("node_labels", np.int64, nodes, path.name)
        self._attributes = self._optional("node_attributes", np.float32, nodes, path.name)

    def _read_edges(self) -> None:
        path = self._file("A")
        ends = read_columns(path, dtype=np.int64, columns=2)
        nodes = len(self._graph_of)
        wrong = np.flatnonzero(((ends < 1) | (ends > nodes)).any(axis=1))
        if len(wrong):
            raise UserError(
                f"{path}, edge {wrong[0] + 1}: node ids must lie in 1..{nodes} (they start at 1), "
                f"got {ends[wrong[0], 0]}, {ends[wrong[0], 1]}"
            )
        ends -= 1
        graph = self._graph_of[ends]
        across = np.flatnonzero(graph[:, 0] != graph[:, 1])
        if len(across):
            row = across[0]
            ids = self.graph_ids[graph[row]]
            raise UserError(
                f"{path}, edge {row + 1}: joins node {ends[row, 0] + 1} of graph {ids[0]} "
                f"to node {ends[row, 1] + 1} of graph {ids[1]}"
            )
        order = np.argsort(graph[:, 0], kind="stable")
        counts = np.bincount(graph[:, 0], minlength=len(self.graph_ids))
        self._edge_start = np.concatenate([[0], np.cumsum(counts)])
        self._edges = self._local[ends[order]]
        labels = self._optional("edge_labels", np.int64, len(ends), path.name)
        attributes = self._optional("edge_attributes", np.float32, len(ends), path.name)
        self._edge_labels = None if labels is None else labels[order]
        self._edge_attributes = None if attributes is None else attributes[order]

    def _read_targets(self) -> None:
        graphs = len(self.graph_ids)
        of = f"{self.name}_graph_indicator.txt (different graph ids)"
        labels = self._optional("graph_labels", np.int64, graphs, of)
        targets = self._optional("graph_attributes", np.float64, graphs, of)
        self._targets = targets
        self._classes: list[str] | None = None
        if labels is not None:
            if labels.shape[1] != 1:
                raise UserError(
                    f"{self._file('graph_labels')}: expected one label a line, "
                    f"got {labels.shape[1]}"
                )
            values, self._label = np.unique(labels[:, 0], return_inverse=True)
            self._classes = [str(value) for value in values]

    def __len__(self) -> int:
        return len(self.graph_ids)

    @property
    def classes(self) -> Sequence[str] | None:
        return self._classes

    def __getitem__(self, index: int) -> Record:
        index = range(len(self))[index]
        nodes = self._order[self._start[index] : self._start[index + 1]]
        edges = slice(self._edge_start[index], self._edge_start[index + 1])

        def rows(values: np.ndarray | None, which: np.ndarray | slice) -> np.ndarray | None:
            return None if values is None else values[which]

        graph = RawGraph(
            len(nodes),
            self._edges[edges],
            rows(self._attributes, nodes),
            rows(self._labels, nodes),
            rows(self._edge_attributes, edges),
            rows(self._edge_labels, edges),
            directed=self.directed,
        )
        head = self.head(index)
        return Record(head.key, graph, head.label, head.meta)

    def head(self, index: int) -> Record:
        """Key, label and meta."""
        label = None if self._classes is None else int(self._label[index])
        meta = {} if self._targets is None else {"target": self._targets[index].tolist()}
        return Record(f"{self.name}/{self.graph_ids[index]}", None, label, meta)

    def fingerprint(self) -> str:
        """Names and sizes of the collection's files."""
        paths = sorted(self.folder.glob(f"{self.name}_*.txt"))
        return digest(f"{path.name} {path.stat().st_size}" for path in paths)
