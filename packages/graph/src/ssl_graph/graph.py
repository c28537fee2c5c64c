"""Graph containers: `RawGraph` as a file gave it, `Graph` as tensors, `GraphBatch` on device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class RawGraph:
    """One graph before its features are encoded; ids are local and start at 0.

    `edges` is int64 `[E, 2]` as listed by the file. `attributes` (float32 `[N, A]`) are numbers,
    `labels` (`[N, L]`, integers or strings) are categories; either may be None. `edge_attributes`
    and `edge_labels` follow `edges` row by row. The names say which column is which; files
    without names number them.
    """

    num_nodes: int
    edges: np.ndarray
    attributes: np.ndarray | None = None
    labels: np.ndarray | None = None
    edge_attributes: np.ndarray | None = None
    edge_labels: np.ndarray | None = None
    attribute_names: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    directed: bool = False


@dataclass(frozen=True)
class Graph:
    """One decoded graph: `x` float32 `[N, F]`, `edge_index` int64 `[2, E]` (source row first).

    Edges are sorted by (source, target), listed once, without self-loops; undirected edges are
    listed in both directions. `edge_attr` is float32 `[E, D]` or None.
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor | None = None

    @property
    def num_nodes(self) -> int:
        return self.x.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes held, for caches."""
        held = [self.x, self.edge_index] + ([] if self.edge_attr is None else [self.edge_attr])
        return sum(tensor.nbytes for tensor in held)

    def to_pyg(self) -> Any:
        """As `torch_geometric.data.Data`."""
        from ssl_graph.pyg import data

        return data.Data(x=self.x, edge_index=self.edge_index, edge_attr=self.edge_attr)


@dataclass(frozen=True)
class GraphBatch:
    """The disjoint union of G graphs, with the attribute names of PyG's `Batch`.

    `x` is `[N, F]`, `edge_index` `[2, E]` in node rows of the union, `batch` (int64 `[N]`,
    ascending) the graph of each node, `ptr` (int64 `[G + 1]`) the row where each graph starts.

    Neighbourhoods cut out of one network (`ssl_graph.nodes`) are `rooted`: the first node of each
    graph is the one it is about, which no view drops and which readouts return. `origin` (int64
    `[N]`) is then each node's row in the network, and `pool` the features of the whole network.
    `edge_weight` (`[E]`), where there is one, is what an edge counts in a propagation (MVGRL's
    diffusion), used as it is. `signs` are the (first, last + 1) columns of `x` whose signs mean
    nothing (Laplacian eigenvectors of a collection).
    """

    x: Tensor
    edge_index: Tensor
    batch: Tensor
    ptr: Tensor
    edge_attr: Tensor | None = None
    directed: bool = field(default=False, kw_only=True)
    rooted: bool = field(default=False, kw_only=True)
    origin: Tensor | None = field(default=None, kw_only=True)
    pool: Tensor | None = field(default=None, kw_only=True)
    edge_weight: Tensor | None = field(default=None, kw_only=True)
    signs: tuple[int, int] | None = field(default=None, kw_only=True)

    @classmethod
    def of(
        cls,
        graphs: Sequence[Graph],
        *,
        directed: bool = False,
        signs: tuple[int, int] | None = None,
    ) -> GraphBatch:
        """Collates graphs; all have the same feature widths."""
        sizes = torch.tensor([graph.num_nodes for graph in graphs])
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        shifted = [
            graph.edge_index + start for graph, start in zip(graphs, ptr[:-1].tolist(), strict=True)
        ]
        attributes = [graph.edge_attr for graph in graphs if graph.edge_attr is not None]
        return cls(
            torch.cat([graph.x for graph in graphs]),
            torch.cat(shifted, dim=1),
            torch.repeat_interleave(torch.arange(len(graphs)), sizes),
            ptr,
            torch.cat(attributes) if attributes else None,
            directed=directed,
            signs=signs,
        )

    def __len__(self) -> int:
        return self.num_graphs

    @property
    def num_graphs(self) -> int:
        return self.ptr.shape[0] - 1

    @property
    def num_nodes(self) -> int:
        return self.x.shape[0]

    @property
    def sizes(self) -> Tensor:
        """Nodes in each graph, int64 `[G]`."""
        return self.ptr.diff()

    @property
    def local(self) -> Tensor:
        """Each node's index within its graph, int64 `[N]`."""
        return torch.arange(self.num_nodes, device=self.x.device) - self.ptr[self.batch]

    @property
    def edge_batch(self) -> Tensor:
        """The graph of each edge, int64 `[E]`."""
        return self.batch[self.edge_index[0]]

    def to(self, device: torch.device | str) -> GraphBatch:
        """The same batch on another device."""
        # Asynchronous only towards a device: a copy to the host is read at once.
        later = torch.device(device).type != "cpu"
        return self._each(lambda tensor: tensor.to(device, non_blocking=later))

    def pin_memory(self) -> GraphBatch:
        """The same batch in page-locked memory, for asynchronous copies."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> GraphBatch:
        names = ("x", "edge_index", "batch", "ptr", "edge_attr", "origin", "pool", "edge_weight")
        held = {name: getattr(self, name) for name in names}
        return replace(self, **{name: change(t) for name, t in held.items() if t is not None})

    def with_x(self, x: Tensor) -> GraphBatch:
        """The same graphs with other node features `[N, F']`."""
        return replace(self, x=x)

    def keep_edges(self, keep: Tensor) -> GraphBatch:
        """Without the edges where `keep` (bool `[E]`) is False; every node stays."""
        return replace(self, edge_index=self.edge_index[:, keep], **self._edge_values(keep))

    def _edge_values(self, rows: Tensor) -> dict[str, Tensor | None]:
        return {
            "edge_attr": None if self.edge_attr is None else self.edge_attr[rows],
            "edge_weight": None if self.edge_weight is None else self.edge_weight[rows],
        }

    def keep_nodes(self, keep: Tensor) -> GraphBatch:
        """The subgraphs induced by the nodes where `keep` (bool `[N]`) is True."""
        row = keep.cumsum(0) - 1
        ends = keep[self.edge_index]
        edge = ends[0] & ends[1]
        batch = self.batch[keep]
        sizes = torch.zeros_like(self.ptr[1:]).index_add_(0, batch, torch.ones_like(batch))
        return replace(
            self,
            x=self.x[keep],
            edge_index=row[self.edge_index[:, edge]],
            batch=batch,
            ptr=torch.cat([self.ptr[:1], sizes.cumsum(0)]),
            origin=None if self.origin is None else self.origin[keep],
            **self._edge_values(edge),
        )

    @classmethod
    def cat(cls, parts: Sequence[GraphBatch]) -> GraphBatch:
        """Several batches of one kind as one, graphs one after another."""
        nodes = torch.tensor([0, *(part.num_nodes for part in parts)]).cumsum(0).tolist()
        graphs = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0).tolist()
        shifted = list(zip(parts, nodes, graphs, strict=False))

        def joined(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.cat(values)

        return replace(
            parts[0],
            x=torch.cat([part.x for part in parts]),
            edge_index=torch.cat([part.edge_index + start for part, start, _ in shifted], dim=1),
            batch=torch.cat([part.batch + first for part, _, first in shifted]),
            ptr=torch.cat(
                [parts[0].ptr[:1], *(part.ptr[1:] + start for part, start, _ in shifted)]
            ),
            edge_attr=joined("edge_attr"),
            edge_weight=joined("edge_weight"),
            origin=joined("origin"),
        )

    def rooted_at(self, nodes: Tensor) -> GraphBatch:
        """The same graphs with row `nodes[g]` as the first node of graph g, and rooted."""
        last = torch.ones(self.num_nodes, dtype=torch.int64, device=self.x.device)
        last[nodes] = 0
        order = (2 * self.batch + last).argsort(stable=True)
        row = torch.empty_like(order)
        row[order] = torch.arange(len(order), device=order.device)
        return replace(
            self,
            x=self.x[order],
            edge_index=row[self.edge_index],
            rooted=True,
            origin=None if self.origin is None else self.origin[order],
        )

    def select(self, rows: slice | Sequence[int] | Tensor) -> GraphBatch:
        """Some of the graphs, in the order asked for."""
        chosen = torch.arange(self.num_graphs, device=self.x.device)[rows]
        sizes = self.sizes[chosen]
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        batch = torch.repeat_interleave(torch.arange(len(chosen), device=ptr.device), sizes)
        within = torch.arange(len(batch), device=ptr.device) - ptr[batch]
        node = within + self.ptr[:-1][chosen][batch]
        by_graph = self.edge_batch.argsort(stable=True)
        counts = torch.bincount(self.edge_batch, minlength=self.num_graphs)
        start = counts.cumsum(0) - counts
        which = torch.repeat_interleave(
            torch.arange(len(chosen), device=ptr.device), counts[chosen]
        )
        first = (counts[chosen].cumsum(0) - counts[chosen])[which]
        order = torch.arange(len(which), device=ptr.device) - first + start[chosen][which]
        edge = by_graph[order]
        shift = (ptr[:-1] - self.ptr[:-1][chosen])[which]
        return replace(
            self,
            x=self.x[node],
            edge_index=self.edge_index[:, edge] + shift,
            batch=batch,
            ptr=ptr,
            origin=None if self.origin is None else self.origin[node],
            **self._edge_values(edge),
        )

    @property
    def roots(self) -> Tensor:
        """The row of each graph's first node, int64 `[G]`: of rooted graphs, the root."""
        return self.ptr[:-1]

    def graphs(self) -> list[Graph]:
        """The graphs one by one, on the CPU; the inverse of `of`."""
        host = self.to("cpu")
        starts = host.ptr.tolist()
        order = host.edge_batch.argsort(stable=True)
        ends = torch.bincount(host.edge_batch, minlength=self.num_graphs).cumsum(0)
        edges = torch.tensor_split(order, ends[:-1])
        return [
            Graph(
                host.x[start:stop],
                host.edge_index[:, rows] - start,
                None if host.edge_attr is None else host.edge_attr[rows],
            )
            for start, stop, rows in zip(starts, starts[1:], edges, strict=False)
        ]

    def dense(self, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Node values `[N, D]` (default `x`) as padded `[G, Nmax, D]` and `valid` `[G, Nmax]`."""
        values = self.x if values is None else values
        widest = int(self.sizes.max())
        out = values.new_zeros(self.num_graphs, widest, *values.shape[1:])
        out[self.batch, self.local] = values
        valid = torch.arange(widest, device=values.device) < self.sizes[:, None]
        return out, valid

    def flat(self, padded: Tensor) -> Tensor:
        """The inverse of `dense`: `[G, Nmax, D]` to `[N, D]`."""
        return padded[self.batch, self.local]
