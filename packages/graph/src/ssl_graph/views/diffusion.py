"""Diffusion views: a graph's edges replaced by where a walk (or heat) gets to (MVGRL, GDC)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ssl_graph.graph import GraphBatch

Diffusion = Literal["ppr", "heat"]


def normalised_adjacency(graphs: GraphBatch, *, self_loops: bool = True) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 of every graph, padded: `[G, Nmax, Nmax]`, zero on padding."""
    widest = int(graphs.sizes.max())
    matrix = graphs.x.new_zeros(len(graphs), widest, widest)
    source, target = graphs.local[graphs.edge_index]
    matrix[graphs.edge_batch, target, source] = 1.0
    if self_loops:
        matrix[graphs.batch, graphs.local, graphs.local] = 1.0
    degree = matrix.sum(2)
    scale = torch.where(degree > 0, degree, torch.ones_like(degree)).rsqrt()
    return scale[:, :, None] * matrix * scale[:, None, :]


def diffusion_matrix(
    adjacency: Tensor, *, kind: Diffusion = "ppr", alpha: float = 0.2, time: float = 5.0
) -> Tensor:
    """From normalised adjacencies `[G, N, N]`: alpha (I - (1 - alpha) A)^-1, or exp(time (A - I)).

    The released heat kernel takes the exponential entry by entry; this is the matrix exponential
    of its paper. With symmetric normalisation PPR rows do not add up to 1.
    """
    one = torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
    if kind == "ppr":
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha must lie in (0, 1], got {alpha}")
        inverse: Tensor = torch.linalg.inv(one - (1 - alpha) * adjacency)
        return alpha * inverse
    if kind == "heat":
        heat: Tensor = torch.linalg.matrix_exp(time * (adjacency - one))
        return heat
    raise ValueError(f"kind must be 'ppr' or 'heat', got {kind!r}")


def diffused(
    graphs: GraphBatch,
    *,
    kind: Diffusion = "ppr",
    alpha: float = 0.2,
    time: float = 5.0,
    eps: float = 1e-4,
) -> GraphBatch:
    """The graphs with weighted edges (loops among them) wherever the diffusion exceeds `eps`."""
    matrix = diffusion_matrix(normalised_adjacency(graphs), kind=kind, alpha=alpha, time=time)
    valid = torch.arange(matrix.shape[1], device=matrix.device) < graphs.sizes[:, None]
    kept = (matrix > eps) & valid[:, :, None] & valid[:, None, :]
    graph, target, source = kept.nonzero(as_tuple=True)
    start = graphs.ptr[graph]
    return replace(
        graphs,
        edge_index=torch.stack([source + start, target + start]),
        edge_attr=None,
        edge_weight=matrix[graph, target, source],
    )
