"""`NodeBatch`: the nodes of one step, around which neighbourhoods are cut out on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.rng import Rng
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.network import Network
from ssl_graph.nodes.samplers import Sampler


@dataclass(frozen=True, slots=True)
class NodeRef:
    """One node of a network: what a record of a node source decodes to."""

    network: Network
    node: int


@dataclass(frozen=True)
class NodeBatch:
    """B nodes of one network (`roots`, int64 `[B]`) and how their surroundings are cut out."""

    network: Network
    roots: Tensor
    sampler: Sampler

    def __len__(self) -> int:
        return self.roots.shape[0]

    def to(self, device: torch.device | str) -> NodeBatch:
        """The same nodes on another device."""
        return NodeBatch(self.network.to(device), self.roots.to(device), self.sampler)

    def pin_memory(self) -> NodeBatch:
        """The roots in page-locked memory; the network is copied once, by `to`."""
        return NodeBatch(self.network, self.roots.pin_memory(), self.sampler)

    def subgraphs(self, rng: Rng) -> GraphBatch:
        """A random neighbourhood of each root, by its key."""
        return self.sampler(self.network, self.roots, rng)

    def plain(self) -> GraphBatch:
        """The neighbourhood that evaluation embeds: the same at every call, in any batch."""
        return self.sampler(self.network, self.roots, Rng.at(0, 0, self.roots))


def graphs_of(data: GraphBatch | NodeBatch, rng: Rng | None = None) -> GraphBatch:
    """The graphs behind `Batch.data`: as they are, or cut out around nodes (keyed by `rng`).

    With `rng` the columns of a collection whose signs are arbitrary get random ones, one draw a
    graph and column, so that nothing can be learned from them. The eigenvectors of one big network
    are the same for all its nodes and keep theirs.
    """
    if isinstance(data, NodeBatch):
        return data.plain() if rng is None else data.subgraphs(rng)
    if rng is None or data.signs is None:
        return data
    start, stop = data.signs
    turned = rng.bernoulli("signs", stop - start, p=0.5)  # [G, stop - start]
    x = data.x.clone()
    x[:, start:stop] *= (1 - 2 * turned.to(x.dtype))[data.batch]
    return data.with_x(x)
