"""How near the nodes of a batch are to each other on the network: powers of its random walk."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_graph.nodes.network import Network


@dataclass(frozen=True)
class Walks:
    """`walk_affinity` of one network with its options: called with rows and columns."""

    network: Network
    power: int
    cumulative: bool

    def __call__(self, roots: Tensor, ends: Tensor) -> Tensor:
        return walk_affinity(
            self.network, roots, ends, power=self.power, cumulative=self.cumulative
        )


def walk_affinity(
    network: Network,
    roots: Tensor,
    ends: Tensor | None = None,
    *,
    power: int = 2,
    cumulative: bool = False,
) -> Tensor:
    """Rows `roots` and columns `ends` (`roots` where None) of A^power, or of A + .. + A^power.

    A is the adjacency with self-loops, rows normalised (SCGC's gamma); float32 `[B, C]`. Walks of
    all roots go outwards together, so the whole matrix is never formed.
    """
    if power < 1:
        raise ValueError(f"power must be at least 1, got {power}")
    count = network.num_nodes
    columns, place = (roots if ends is None else ends).unique(return_inverse=True)
    code = torch.arange(len(roots), device=roots.device) * count + roots
    mass = torch.ones(len(roots), dtype=torch.float64, device=roots.device)
    total = torch.zeros(len(roots), len(columns), dtype=torch.float64, device=roots.device)
    for step in range(1, power + 1):
        node = code % count
        share = mass / (network.degree[node] + 1)
        row, position = network.expand(node)
        onward = code[row] // count * count + network.neighbours[position]
        code, inverse = torch.cat([code, onward]).unique(return_inverse=True)
        moved = torch.cat([share, share[row]])
        mass = torch.zeros_like(code, dtype=torch.float64).index_add_(0, inverse, moved)
        if cumulative or step == power:
            where = torch.searchsorted(columns, code % count).clamp(max=len(columns) - 1)
            met = columns[where] == code % count
            total[code[met] // count, where[met]] += mass[met]
    return total[:, place].float()
