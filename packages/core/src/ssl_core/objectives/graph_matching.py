"""Second-order graph matching of two views' graphs, differentiated through the solver (LVM-Med)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.precision import full_precision
from ssl_core.rng import generator

_EXHAUSTIVE = 6
"""Up to so many nodes every permutation is tried."""
_STARTS = 12


def neighbours(nodes: Tensor, count: int) -> Tensor:
    """Directed edges to the `count` nearest others of each node: bool `[G, n, n]`, row to column.

    `nodes` is `[G, n, D]`, G graphs of n nodes; `count` is cut at n - 1.
    """
    size = nodes.shape[1]
    apart = torch.cdist(nodes.detach(), nodes.detach())
    apart.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    nearest = apart.topk(min(count, size - 1), dim=2, largest=False).indices
    edges = torch.zeros(apart.shape, dtype=torch.bool, device=nodes.device)
    return edges.scatter(2, nearest, True)


@full_precision
def graph_matching(
    x: Tensor,
    y: Tensor,
    edges_x: Tensor,
    edges_y: Tensor,
    *,
    costs: Tensor | None = None,
    vertex_weight: float = 1.0,
    edge_weight: float = 0.5,
    margin: float = 1.0,
    jump: float = 80.0,
    noise: Tensor | None = None,
) -> Tensor:
    """Wrongly matched nodes, counted twice, of G pairs of graphs whose k-th nodes belong together.

        v = argmin over permutations of <c, v> + <d, v x v>
        c_ij = -vertex_weight (softplus(x_i . y_j) - 1/2) + margin [i = j] + costs_ij
        d_(ij)(kl) = -edge_weight (softplus((x_i - x_j) . (y_k - y_l)) - 1/2)   for edges ij and kl
        L = mean over graphs of sum v (1 - v*) + (1 - v) v*,    v* = identity

    Arguments: nodes `x`, `y` `[G, n, D]`; `edges` bool `[G, n, n]` (`neighbours`); further vertex
    `costs` `[G, n, n]`. The margin makes true pairs dearer, so that they must win clearly.

    The gradient goes through the solver by interpolation (Vlastelica et al., ICLR 2020):
    dL/dc = (v(c + jump dL/dv) - v(c)) / jump for each graph, and the same for d; it is zero where
    v = v*. With `noise` `[G, n, n]` (Gumbel) added to c both times it is the implicit maximum-
    likelihood estimate (Niepert et al., NeurIPS 2021). m wrong nodes in every graph cost 2m.
    """
    if x.dim() != 3 or x.shape != y.shape or edges_x.shape != edges_y.shape:
        raise ValueError(
            f"graph_matching: nodes must be [G, n, D] alike, got {tuple(x.shape)} and "
            f"{tuple(y.shape)} with edges {tuple(edges_x.shape)} and {tuple(edges_y.shape)}"
        )
    if jump <= 0:
        raise ValueError(f"jump must be positive, got {jump}")
    like = x @ y.mT  # [G, n, n]
    true = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    unary = margin * true - vertex_weight * (F.softplus(like) - 0.5)
    if costs is not None:
        unary = unary + costs.to(unary.dtype)
    pairs = _edge_costs(like, edges_x, edges_y, edge_weight)
    wrong: Tensor = _Mismatch.apply(unary, pairs, true, jump, noise)
    return wrong.mean()


def _edge_costs(like: Tensor, edges_x: Tensor, edges_y: Tensor, weight: float) -> Tensor:
    """d as `[G, i, j, k, l]`, zero where ij or kl is no edge.

    All inner products of differences are differences of inner products of nodes.
    """
    rows = like[:, :, None] - like[:, None]  # x_i - x_j onto y_k: [G, i, j, k]
    inner = rows.unsqueeze(-1) - rows.unsqueeze(-2)  # [G, i, j, k, l]
    both = edges_x[:, :, :, None, None] & edges_y[:, None, None]
    return torch.where(both, -weight * (F.softplus(inner) - 0.5), 0.0)


class _Mismatch(torch.autograd.Function):
    """`[G]` Hamming distances of the cheapest matchings from the true one."""

    @staticmethod
    def forward(
        ctx: Any, unary: Tensor, pairs: Tensor, true: Tensor, jump: float, noise: Tensor | None
    ) -> Tensor:
        seen = unary if noise is None else unary + noise.to(unary.dtype)
        slope = 1 - 2 * true  # of the distance with respect to v
        both = torch.cat([seen, seen + jump * slope])
        found = solve(both, torch.cat([pairs, pairs])).to(unary.device)
        v = F.one_hot(found, unary.shape[1]).to(unary.dtype)  # [2G, n, n]
        v, moved = v.chunk(2)
        # An edge of a matching is a pair of its nodes.
        quadratic = _outer(moved) - _outer(v)
        ctx.save_for_backward((moved - v) / jump, quadratic / jump)
        return (v * (1 - true) + (1 - v) * true).sum((1, 2))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        unary, quadratic = ctx.saved_tensors
        grad = grads[0]
        along = grad.view(-1, 1, 1, 1, 1)
        return grad.view(-1, 1, 1) * unary, along * quadratic, None, None, None


def _outer(v: Tensor) -> Tensor:
    """v_ik v_jl as `[G, i, j, k, l]`."""
    return torch.einsum("gik,gjl->gijkl", v, v)


@torch.no_grad()
def solve(unary: Tensor, pairs: Tensor) -> Tensor:
    """The cheapest matchings, int64 `[G, n]`: node i of the first graph meets node p_i.

    `unary` `[G, n, n]`, `pairs` `[G, n, n, n, n]` as (i, j, k, l): i meets k while j meets l. Up to
    six nodes the answer is exact. Beyond, the best pairwise exchange is made until none helps, from
    the assignment that `unary` alone asks for (exact without edges) and from twelve fixed orders.
    Runs on the CPU in float64.
    """
    unary, pairs = unary.detach().double().cpu(), pairs.detach().double().cpu()
    size = unary.shape[1]
    if size <= _EXHAUSTIVE:
        orders = torch.tensor(list(itertools.permutations(range(size))))
        every = orders.expand(len(unary), -1, -1)
        return orders[_price(every, unary, pairs).argmin(1)]
    from scipy.optimize import linear_sum_assignment

    first = np.stack([linear_sum_assignment(costs)[1] for costs in unary.numpy()])
    random = generator("graph matching", size)
    others = np.stack([random.permutation(size) for _ in range(_STARTS)])
    starts = torch.cat(
        [torch.from_numpy(first)[:, None], torch.from_numpy(others).expand(len(unary), -1, -1)], 1
    )
    count = starts.shape[1]
    graph = torch.arange(len(unary)).repeat_interleave(count)
    found = _exchanged(starts.flatten(0, 1), graph, unary, pairs).view(-1, count, size)
    best = _price(found, unary, pairs).argmin(1)
    return found[torch.arange(len(found)), best]


def _price(orders: Tensor, unary: Tensor, pairs: Tensor, graph: Tensor | None = None) -> Tensor:
    """What orders `[R, C, n]` cost, `[R, C]`; row r belongs to graph r, or to `graph[r]`."""
    size = orders.shape[2]
    row = torch.arange(len(orders)) if graph is None else graph
    at = torch.arange(size)
    single = unary[row[:, None, None], at, orders].sum(2)
    here, there = orders.unsqueeze(3), orders.unsqueeze(2)
    double = pairs[row[:, None, None, None], at[:, None], at, here, there]
    return single + double.sum((2, 3))


def _exchanged(orders: Tensor, graph: Tensor, unary: Tensor, pairs: Tensor) -> Tensor:
    """Orders `[R, n]` after the best exchanges of two places, until none is cheaper."""
    size = orders.shape[1]
    swaps = torch.arange(size).repeat(size * (size - 1) // 2, 1)
    one, two = torch.triu_indices(size, size, 1)
    number = torch.arange(len(swaps))
    swaps[number, one], swaps[number, two] = two, one
    orders = orders.clone()
    active = torch.arange(len(orders))
    price = _price(orders[:, None], unary, pairs, graph)[:, 0]
    while len(active):
        tried = orders[active][:, swaps]  # [r, S, n]
        least, which = _price(tried, unary, pairs, graph[active]).min(1)
        better = least < price[active] - 1e-12
        active, least, which = active[better], least[better], which[better]
        orders[active] = tried[better, which]
        price[active] = least
    return orders
