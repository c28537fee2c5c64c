"""Neighbourhoods in the making: nodes gathered around each root, and the graphs they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ssl_core.rng import Rng
from ssl_graph.graph import GraphBatch

if TYPE_CHECKING:
    from ssl_graph.nodes.network import Network


def ranks(group: Tensor, score: Tensor, groups: int) -> Tensor:
    """The place of each item in its group by rising `score`, int64 `[M]`; ties: the earlier one."""
    by_score = score.argsort(stable=True)
    order = by_score[group[by_score].argsort(stable=True)]
    counts = torch.bincount(group, minlength=groups)
    place = torch.arange(len(order), device=order.device)
    rank = torch.empty_like(order)
    rank[order] = place - (counts.cumsum(0) - counts)[group[order]]
    return rank


class Grown:
    """The nodes gathered so far around each root: root first, then in the order of adding."""

    def __init__(self, network: Network, roots: Tensor) -> None:
        self.network = network
        group = torch.arange(len(roots), device=roots.device)
        self.parts = [(group, roots)]
        self.codes = group * network.num_nodes + roots

    @property
    def newest(self) -> tuple[Tensor, Tensor]:
        """(root's number, node) of what the last `add` brought."""
        return self.parts[-1]

    def add(
        self, group: Tensor, node: Tensor, *, rng: Rng | None = None, cap: int | None = None
    ) -> None:
        """Adds those nodes that a root does not have yet; with `cap` a keyed part of them."""
        code = (group * self.network.num_nodes + node).unique()
        code = code[~torch.isin(code, self.codes)]
        group, node = code // self.network.num_nodes, code % self.network.num_nodes
        if cap is not None and rng is not None:
            drawn = rng[group].fold("cap", node).uniform("keep", dtype=torch.float64)
            groups = len(self.parts[0][0])
            have = torch.bincount(torch.cat([part[0] for part in self.parts]), minlength=groups)
            kept = ranks(group, drawn, groups) < (cap - have)[group]
            group, node, code = group[kept], node[kept], code[kept]
        self.parts.append((group, node))
        self.codes = torch.cat([self.codes, code])

    def induced(self) -> GraphBatch:
        """The graphs with every edge between their nodes."""
        group = torch.cat([part[0] for part in self.parts])
        node = torch.cat([part[1] for part in self.parts])
        row, position = self.network.expand(node)
        owner = group[row]
        inside = torch.isin(
            owner * self.network.num_nodes + self.network.neighbours[position], self.codes
        )
        return self.batch(owner[inside], position[inside])

    def batch(self, owner: Tensor, position: Tensor) -> GraphBatch:
        """The graphs with the edges at `position` of the network, each in graph `owner`."""
        network = self.network
        group = torch.cat([part[0] for part in self.parts])
        node = torch.cat([part[1] for part in self.parts])
        order = group.argsort(stable=True)
        group, node = group[order], node[order]
        sizes = torch.bincount(group, minlength=len(self.parts[0][0]))
        by_code = (group * network.num_nodes + node).argsort()
        codes = (group * network.num_nodes + node)[by_code]

        def rows(nodes: Tensor) -> Tensor:
            wanted = owner * network.num_nodes + nodes
            return by_code[torch.searchsorted(codes, wanted)]

        edge_index = torch.stack(
            [rows(network.neighbours[position]), rows(network.targets[position])]
        )
        return GraphBatch(
            network.x[node],
            edge_index,
            group,
            torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
            None if network.edge_attr is None else network.edge_attr[position],
            directed=network.directed,
            rooted=True,
            origin=node,
            pool=network.x,
        )
