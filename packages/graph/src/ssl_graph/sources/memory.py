"""Graphs that are already in memory: NetworkX, PyTorch Geometric or `RawGraph` objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssl_core.batch import Record
from ssl_core.data.heads import digest
from ssl_core.errors import UserError
from ssl_graph.graph import Graph, RawGraph
from ssl_graph.sources.convert import from_networkx, from_pyg
from ssl_graph.sources.labelled import LabelledGraphs


def to_raw(graph: Any) -> RawGraph | Graph:
    """Any supported graph object as what the reader takes."""
    if isinstance(graph, (RawGraph, Graph)):
        return graph
    if hasattr(graph, "is_multigraph") and hasattr(graph, "adj"):
        return from_networkx(graph)
    if hasattr(graph, "edge_index"):
        return from_pyg(graph)
    raise UserError(
        f"graphs: {type(graph).__name__} is not a graph; give NetworkX graphs, "
        "torch_geometric Data, or ssl_graph.graph.RawGraph"
    )


def _own_label(graph: Any) -> int | str | None:
    """The label that a graph object carries, if any."""
    if hasattr(graph, "edge_index"):
        y = getattr(graph, "y", None)
        if y is None or y.numel() != 1 or y.is_floating_point():
            return None
        return int(y)
    label: int | str | None = getattr(graph, "graph", {}).get("label")
    return label


class GraphList(LabelledGraphs):
    """A sequence of graphs as a source.

    `labels` are integers or strings, one a graph, None where unknown; without them a NetworkX
    graph's own `graph.graph["label"]`, or a whole number in `y` of a PyG graph, counts.
    """

    def __init__(
        self,
        graphs: Sequence[Any],
        *,
        labels: Sequence[int | str | None] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        if labels is None:
            labels = [_own_label(graph) for graph in graphs]
        for name, given in (("labels", labels), ("keys", keys)):
            if given is not None and len(given) != len(graphs):
                raise UserError(f"{name}: got {len(given)} for {len(graphs)} graphs")
        self.graphs = graphs
        self.keys = [f"graph/{i}" for i in range(len(graphs))] if keys is None else list(keys)
        super().__init__(labels)

    def __len__(self) -> int:
        return len(self.graphs)

    def head(self, index: int) -> Record:
        """Key and label."""
        return Record(self.keys[index], None, self.label(index))

    def payload(self, index: int) -> RawGraph | Graph:
        """The graph as the reader takes it."""
        return to_raw(self.graphs[index])

    def fingerprint(self) -> str:
        """Keys and the numbers of nodes and edges."""
        parts: list[object] = []
        for key, graph in zip(self.keys, self.graphs, strict=True):
            raw = to_raw(graph)
            edges = raw.edge_index.shape[1] if isinstance(raw, Graph) else len(raw.edges)
            parts += [key, raw.num_nodes, edges]
        return digest(parts)
