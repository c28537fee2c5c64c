"""Personalised PageRank by forward push (Andersen, Chung & Lang 2006), for many roots at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ssl_graph.nodes.network import Network


def personalised_pagerank(
    network: Network, roots: Tensor, *, alpha: float = 0.15, eps: float = 1e-4
) -> tuple[Tensor, Tensor, Tensor]:
    """Approximate PageRank of walks that return to their root with probability `alpha`.

    Returns (number of the root, node, mass) of the entries with any mass, sorted by root and
    node; float64. Residuals are pushed while any is at least `eps` times the degree of its node,
    so at the end no entry is short of its exact value by more than `eps` times its degree, and
    the work depends on `1 / (alpha eps)`, not on the size of the network. A walk at a node
    without edges stays there.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must lie in (0, 1], got {alpha}")
    if eps <= 0:
        raise ValueError(f"eps must be positive, got {eps}")
    count = network.num_nodes
    code = torch.arange(len(roots), device=roots.device) * count + roots
    residual = torch.ones(len(roots), dtype=torch.float64, device=roots.device)
    settled, settled_mass = code[:0], residual[:0]
    while True:
        node = code % count
        degree = network.degree[node].clamp(min=1)
        active = residual >= eps * degree
        if not active.any():
            break
        pushed, mass = code[active], residual[active]
        stuck = network.degree[pushed % count] == 0
        # Where a walk cannot move, the rest of it is spent at once.
        settled, settled_mass = _summed(
            torch.cat([settled, pushed]),
            torch.cat([settled_mass, torch.where(stuck, mass, alpha * mass)]),
        )
        row, position = network.expand(pushed % count)
        onward = ((1 - alpha) * mass / network.degree[pushed % count])[row]
        target = pushed[row] // count * count + network.neighbours[position]
        code, residual = _summed(
            torch.cat([code[~active], target]), torch.cat([residual[~active], onward])
        )
    return settled // count, settled % count, settled_mass


def _summed(code: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Mass added up by code, codes ascending."""
    unique, inverse = code.unique(return_inverse=True)
    return unique, torch.zeros_like(unique, dtype=mass.dtype).index_add_(0, inverse, mass)
