"""`Network`: one big graph in compressed rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from threading import RLock

import torch
from torch import Tensor

from ssl_core.rng import Rng
from ssl_graph.graph import Graph
from ssl_graph.nodes.partition import grow_parts


class Network:
    """A graph of N nodes and E listed edges, by target: row v holds the sources of edges into v.

    `x` is float32 `[N, F]`, `ptr` int64 `[N + 1]`, `neighbours` int64 `[E]` (ascending within a
    row), `edge_attr` `[E, D]` or None, in the same order. Undirected graphs list both directions.
    `known` (int64 `[N]`, -1 unknown) are labels that label-aware tasks may look at, or None.
    """

    def __init__(
        self,
        x: Tensor,
        ptr: Tensor,
        neighbours: Tensor,
        edge_attr: Tensor | None = None,
        *,
        directed: bool = False,
        known: Tensor | None = None,
    ) -> None:
        self.x = x
        self.ptr = ptr
        self.neighbours = neighbours
        self.edge_attr = edge_attr
        self.directed = directed
        self.known = known
        self._made: dict[str, Tensor] = {}
        self._lock = RLock()
        self._copies: dict[torch.device, Network] = {}

    @classmethod
    def of(cls, graph: Graph, *, directed: bool = False, known: Tensor | None = None) -> Network:
        """Compressed rows of a decoded graph."""
        source, target = graph.edge_index
        order = (target * graph.num_nodes + source).argsort()
        counts = torch.bincount(target, minlength=graph.num_nodes)
        attr = None if graph.edge_attr is None else graph.edge_attr[order]
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(graph.x, ptr, source[order], attr, directed=directed, known=known)

    @property
    def num_nodes(self) -> int:
        return self.x.shape[0]

    @property
    def num_edges(self) -> int:
        return self.neighbours.shape[0]

    @cached_property
    def degree(self) -> Tensor:
        """Edges into each node, int64 `[N]`."""
        return self.ptr.diff()

    @cached_property
    def targets(self) -> Tensor:
        """The node whose row each listed edge stands in, int64 `[E]`."""
        rows = torch.arange(self.num_nodes, device=self.ptr.device)
        return torch.repeat_interleave(rows, self.degree)

    @cached_property
    def reverse(self) -> Tensor:
        """Where the other direction of each listed edge stands, int64 `[E]`; undirected only."""
        codes = self.targets * self.num_nodes + self.neighbours
        return torch.searchsorted(codes, self.neighbours * self.num_nodes + self.targets)

    @cached_property
    def clusters(self) -> tuple[Tensor, Tensor, Tensor]:
        """A partition grown from hubs: part of each node, members by part, and their starts."""
        part = grow_parts(self.ptr, self.neighbours)
        counts = torch.bincount(part)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return part, part.argsort(stable=True), starts

    @property
    def num_classes(self) -> int:
        """Classes among the known labels; 0 where none are known."""
        return 0 if self.known is None else int(self.known.max()) + 1

    def cached(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What `make` computes from this network, made once under `name`."""
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    def to(self, device: torch.device | str) -> Network:
        """The same network on a device; the copy is made once and kept."""
        place = torch.device(device)
        if self.x.device == place:
            return self
        if place not in self._copies:
            attr = None if self.edge_attr is None else self.edge_attr.to(place)
            self._copies[place] = Network(
                self.x.to(place),
                self.ptr.to(place),
                self.neighbours.to(place),
                attr,
                directed=self.directed,
                known=None if self.known is None else self.known.to(place),
            )
        return self._copies[place]

    def expand(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Every edge into each of M nodes: (which of the M, position in `neighbours`)."""
        degree = self.degree[nodes]
        row = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), degree)
        first = (degree.cumsum(0) - degree)[row]
        within = torch.arange(len(row), device=nodes.device) - first
        return row, self.ptr[nodes][row] + within

    def step(self, nodes: Tensor, keys: Rng) -> Tensor:
        """One step of a random walk from each of M nodes; a node without edges is stayed at."""
        degree = self.degree[nodes]
        if self.num_edges == 0:
            return nodes
        slot = keys.integers("step", high=degree.clamp(min=1))
        position = (self.ptr[nodes] + slot).clamp(max=self.num_edges - 1)
        return torch.where(degree > 0, self.neighbours[position], nodes)
