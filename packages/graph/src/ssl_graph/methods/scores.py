"""How nodes are scored against summaries: what DGI, MVGRL and InfoGraph share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core.distributed import all_mean, gather, rank
from ssl_core.encoder import Features
from ssl_core.objectives.discriminators import jsd


class Bilinear(nn.Module):
    """h' W s + b for nodes `[..., D]` against summaries that broadcast to them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, dim))
        self.bias = nn.Parameter(torch.zeros(()))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, nodes: Tensor, summary: Tensor) -> Tensor:
        return ((nodes @ self.weight) * summary).sum(-1) + self.bias


class ResidualMLP(nn.Module):
    """Three ReLU layers beside a linear shortcut (InfoGraph's local and global networks)."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Linear(dim, out),
            nn.ReLU(),
            nn.Linear(out, out),
            nn.ReLU(),
            nn.Linear(out, out),
            nn.ReLU(),
        )
        self.shortcut = nn.Linear(dim, out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x) + self.shortcut(x)
        return out


def nodes_of(features: Features, rooted: bool) -> tuple[Tensor, Tensor]:
    """The nodes a method compares, `[G, N, D]`, and which are real.

    Of a neighbourhood it is the root alone: its other nodes lack part of their own neighbours.
    """
    assert features.tokens is not None
    assert features.valid is not None
    if rooted:
        only = features.pooled[:, None]
        return only, torch.ones_like(only[..., 0], dtype=torch.bool)
    return features.tokens, features.valid


def node_mean(nodes: Tensor, valid: Tensor, *, rooted: bool) -> Tensor:
    """The mean node: of each graph `[G, 1, D]`, or over the roots of all replicas `[1, 1, D]`."""
    weight = valid[..., None].to(nodes.dtype)
    if rooted:
        return all_mean(nodes.mean((0, 1), keepdim=True))
    return (nodes * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)


def local_global(nodes: Tensor, valid: Tensor, graphs: Tensor) -> Tensor:
    """InfoGraph's bound: dot products of every node with its own graph against all other graphs.

    `nodes` `[G, N, D]`, `valid` `[G, N]`, `graphs` `[G, D]`; other replicas' graphs are negatives
    too.
    """
    everyone = gather(graphs)  # [W G, D]
    scores = nodes @ everyone.T  # [G, N, W G]
    first = rank() * len(graphs)
    own = torch.arange(first, first + len(graphs), device=graphs.device)
    mine = torch.zeros_like(scores[:, 0], dtype=torch.bool)
    mine[torch.arange(len(graphs), device=graphs.device), own] = True
    true = mine[:, None] & valid[..., None]
    false = ~mine[:, None] & valid[..., None]
    return jsd(scores, scores, positive_weight=true, negative_weight=false)
