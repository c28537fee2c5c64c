"""Neighbourhoods of nodes, cut out of a network for a whole batch at once.

Every sampler is a function of the network, the roots and one key a root; a root's neighbourhood
is the same in any batch. All of it is tensor arithmetic on compressed rows, on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssl_core.errors import UserError, unknown
from ssl_core.registry import check_options
from ssl_core.rng import Rng
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.push import personalised_pagerank

if TYPE_CHECKING:
    from ssl_graph.nodes.network import Network


def distinct(keys: Rng, size: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` different numbers below `size[m]` for each of M keys, all of them where fewer.

    Floyd's algorithm (Bentley & Floyd 1987): exact sampling without replacement in `count`
    draws, however large the range. Returns int64 `[M, count]` and which entries count (bool).
    """
    place = torch.arange(count, device=size.device)
    top = (size[:, None] - count + place).clamp(min=0)  # [M, count]
    drawn = keys.integers("distinct", count, high=top + 1)
    chosen = torch.full_like(drawn, -1)
    for i in range(count):
        taken = (chosen == drawn[:, i, None]).any(1)
        chosen[:, i] = torch.where(taken, top[:, i], drawn[:, i])
    chosen = torch.where(size[:, None] <= count, place, chosen)
    return chosen, place < size[:, None]


def neighbours(
    network: Network, roots: Tensor, rng: Rng, *, fanout: Sequence[int] = (10, 10)
) -> GraphBatch:
    """GraphSAGE's sampling (Hamilton et al. 2017): up to `fanout[h]` neighbours of each node.

    Sampling is without replacement; the edges are those sampled, in both directions where the
    network is undirected.
    """
    if isinstance(fanout, int) or not fanout or min(fanout) < 1:
        raise ValueError(f"fanout must be a list of counts of at least 1, got {fanout!r}")
    grown = _Grown(network, roots)
    edges: list[Tensor] = []
    for hop, count in enumerate(fanout):
        group, node = grown.newest
        keys = rng[group].fold("hop", hop, node)
        slot, valid = distinct(keys, network.degree[node], count)
        position = (network.ptr[node][:, None] + slot)[valid]
        owner = group[:, None].expand_as(slot)[valid]
        edges.append(owner * max(network.num_edges, 1) + position)
        grown.add(owner, network.neighbours[position])
    code = torch.cat(edges)
    owner, position = code // max(network.num_edges, 1), code % max(network.num_edges, 1)
    if not network.directed:
        both = torch.cat([position, network.reverse[position]])
        code = owner.repeat(2) * max(network.num_edges, 1) + both
    code = code.unique()
    return grown.batch(code // max(network.num_edges, 1), code % max(network.num_edges, 1))


def khop(
    network: Network, roots: Tensor, rng: Rng, *, hops: int = 2, max_nodes: int = 1000
) -> GraphBatch:
    """Everything within `hops` steps, with all edges between; the nearest `max_nodes` nodes.

    Where the last shell does not fit, a keyed part of it stays.
    """
    if hops < 1 or max_nodes < 1:
        raise ValueError(f"hops and max_nodes must be at least 1, got {hops} and {max_nodes}")
    grown = _Grown(network, roots)
    for _ in range(hops):
        group, node = grown.newest
        row, position = network.expand(node)
        grown.add(group[row], network.neighbours[position], rng=rng, cap=max_nodes)
    return grown.induced()


def walk(
    network: Network,
    roots: Tensor,
    rng: Rng,
    *,
    walks: int = 4,
    length: int = 8,
    restart: float = 0.2,
) -> GraphBatch:
    """The nodes met by `walks` random walks with restart, and all edges between them."""
    if walks < 1 or length < 1 or not 0 <= restart < 1:
        raise ValueError(
            f"walks and length must be at least 1 and restart in [0, 1), "
            f"got {walks}, {length}, {restart}"
        )
    grown = _Grown(network, roots)
    group = torch.arange(len(roots), device=roots.device).repeat_interleave(walks)
    number = torch.arange(walks, device=roots.device).repeat(len(roots))
    keys = rng[group].fold("walk", number)
    start = roots[group]
    at, met = start, []
    for step in range(length):
        moving = keys.fold(step)
        slot = moving.integers("step", high=network.degree[at].clamp(min=1))
        position = (network.ptr[at] + slot).clamp(max=max(network.num_edges - 1, 0))
        stuck = network.degree[at] == 0
        onward = at if network.num_edges == 0 else network.neighbours[position]
        at = torch.where(stuck | moving.bernoulli("restart", p=restart), start, onward)
        met.append(at)
    grown.add(group.repeat(length), torch.cat(met))
    return grown.induced()


def ppr(
    network: Network,
    roots: Tensor,
    rng: Rng,
    *,
    top: int = 32,
    alpha: float = 0.15,
    eps: float = 1e-4,
) -> GraphBatch:
    """The `top` nodes of largest personalised PageRank from each root, and all edges between.

    Deterministic: the keys are not used. See `personalised_pagerank` for `alpha` and `eps`.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    group, node, mass = personalised_pagerank(network, roots, alpha=alpha, eps=eps)
    order = mass.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    counts = torch.bincount(group, minlength=len(roots))
    first = (counts.cumsum(0) - counts)[group[order]]
    kept = order[torch.arange(len(order), device=node.device) - first < top]
    grown = _Grown(network, roots)
    grown.add(group[kept], node[kept])
    return grown.induced()


def cluster(network: Network, roots: Tensor, rng: Rng, *, max_nodes: int = 128) -> GraphBatch:
    """The part of a fixed partition that holds the root (Cluster-GCN; Chiang et al. 2019).

    At most `max_nodes` members, chosen by key; all edges between them.
    """
    if max_nodes < 1:
        raise ValueError(f"max_nodes must be at least 1, got {max_nodes}")
    part, members, starts = network.clusters
    own = part[roots]
    slot, valid = distinct(rng.fold("members"), starts.diff()[own], max_nodes)
    group = torch.arange(len(roots), device=roots.device)[:, None].expand_as(slot)
    grown = _Grown(network, roots)
    grown.add(group[valid], members[(starts[own][:, None] + slot)[valid]])
    return grown.induced()


SAMPLERS: dict[str, Callable[..., GraphBatch]] = {
    "neighbours": neighbours,
    "khop": khop,
    "walk": walk,
    "ppr": ppr,
    "cluster": cluster,
}


@dataclass(frozen=True)
class Sampler:
    """A sampler by name with its options, as the reader stores it."""

    name: str = "neighbours"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise unknown("data.options.sampler", self.name, SAMPLERS)
        check_options(f"sampler {self.name}", SAMPLERS[self.name], self.options, positional=3)

    def __call__(self, network: Network, roots: Tensor, rng: Rng) -> GraphBatch:
        try:
            return SAMPLERS[self.name](network, roots, rng, **self.options)
        except ValueError as error:
            raise UserError(f"sampler {self.name}: {error}") from error


class _Grown:
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
            order = drawn.argsort(stable=True)
            order = order[group[order].argsort(stable=True)]
            counts = torch.bincount(group, minlength=len(self.parts[0][0]))
            have = torch.bincount(
                torch.cat([part[0] for part in self.parts]), minlength=len(counts)
            )
            rank = torch.arange(len(order), device=order.device)
            rank = rank - (counts.cumsum(0) - counts)[group[order]]
            kept = order[rank < (cap - have)[group[order]]].sort().values
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
