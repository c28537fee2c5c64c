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
from ssl_graph.nodes.grown import Grown, ranks
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
    grown = Grown(network, roots)
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
    grown = Grown(network, roots)
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
    grown = Grown(network, roots)
    group = torch.arange(len(roots), device=roots.device).repeat_interleave(walks)
    number = torch.arange(walks, device=roots.device).repeat(len(roots))
    keys = rng[group].fold("walk", number)
    start = roots[group]
    at, met = start, []
    for step in range(length):
        moving = keys.fold(step)
        # At a node without edges a walk begins again, too.
        back = moving.bernoulli("restart", p=restart) | (network.degree[at] == 0)
        at = torch.where(back, start, network.step(at, moving))
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
    kept = ranks(group, -mass, len(roots)) < top
    grown = Grown(network, roots)
    grown.add(group[kept], node[kept])
    return grown.induced()


def local(
    network: Network,
    roots: Tensor,
    rng: Rng,
    *,
    max_nodes: int = 128,
    min_nodes: int = 8,
    alpha: float = 0.15,
    eps: float = 1e-4,
    cut: bool = True,
) -> GraphBatch:
    """The local cluster of each root (Andersen, Chung & Lang 2006), with all edges inside.

    Nodes in the order of PageRank over degree, at most `max_nodes`, are cut off where the
    conductance is lowest, not before `min_nodes`. Deterministic: the keys are not used. GraphMAE2's
    paper trains on these; its release computes the cut and leaves it unused (`cut` false).
    """
    if not 1 <= min_nodes <= max_nodes:
        raise ValueError(f"must have 1 <= min_nodes <= max_nodes, got {min_nodes} and {max_nodes}")
    if network.directed:
        raise ValueError("conductance is of undirected edges; set data.options.directed to false")
    group, node, mass = personalised_pagerank(network, roots, alpha=alpha, eps=eps)
    mass = mass / network.degree[node].clamp(min=1)
    rank = ranks(group, torch.where(node == roots[group], -torch.inf, -mass), len(roots))
    kept = rank < max_nodes
    group, node, rank = group[kept], node[kept], rank[kept]
    if cut:
        worth = conductance(network, group, node, rank, len(roots))  # [B, longest]
        size = torch.bincount(group, minlength=len(roots))[:, None]
        place = torch.arange(worth.shape[1], device=node.device)
        allowed = (place < size) & (place >= size.clamp(max=min_nodes) - 1)
        last = torch.where(allowed, worth, torch.inf).argmin(1)
        kept = rank <= last[group]
        group, node = group[kept], node[kept]
    grown = Grown(network, roots)
    grown.add(group, node)
    return grown.induced()


def conductance(network: Network, group: Tensor, node: Tensor, rank: Tensor, groups: int) -> Tensor:
    """Edges that leave the first 1, 2, .. nodes of each list, per edge of the smaller side.

    `group`, `node`, `rank` (int64 `[M]`, sorted by group and node) are lists of nodes in an order
    of their own; returns float64 `[groups, longest]`, meaningless past a list's end. A list that
    holds every edge of the network counts 1, one that nothing leaves 0.
    """
    longest = int(rank.max()) + 1
    volume = torch.zeros(groups, longest, dtype=torch.float64, device=node.device)
    volume[group, rank] = network.degree[node].double()
    code = group * network.num_nodes + node
    row, position = network.expand(node)
    wanted = group[row] * network.num_nodes + network.neighbours[position]
    place = torch.searchsorted(code, wanted).clamp(max=len(code) - 1)
    met = code[place] == wanted
    owner, place = row[met], place[met]
    cell = group[owner] * longest + torch.maximum(rank[owner], rank[place])
    inside = torch.bincount(cell, minlength=groups * longest).reshape(groups, longest)
    volume, within = volume.cumsum(1), inside.cumsum(1).double()
    smaller = volume.minimum(network.num_edges - volume)
    return torch.where(smaller > 0, (volume - within) / smaller.clamp(min=1), 1.0)


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
    grown = Grown(network, roots)
    grown.add(group[valid], members[(starts[own][:, None] + slot)[valid]])
    return grown.induced()


SAMPLERS: dict[str, Callable[..., GraphBatch]] = {
    "neighbours": neighbours,
    "khop": khop,
    "walk": walk,
    "ppr": ppr,
    "local": local,
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
