"""Whitening: embeddings whose covariance is the identity cannot collapse."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import gather, rank
from ssl_core.objectives.precision import full_precision

_LEAST = 1e-12
"""Variance of embeddings that are taken for constant."""


@full_precision
def whiten(z: Tensor, *, eps: float = 0.0) -> Tensor:
    """Rows `[..., N, D]` with mean 0 and covariance I, by the inverse Cholesky factor.

    The covariance divides by N - 1 and is shrunk to (1 - eps) cov + eps s I first, s the mean of
    the variances (the release: 1). A share of their own size cannot be outgrown: with a fixed one
    embeddings that shrink are no longer whitened, and collapse. N must exceed D unless `eps` > 0.
    Gradients flow through the statistics.
    """
    count, dim = z.shape[-2:]
    if count <= dim and eps <= 0:
        raise ValueError(
            f"whiten: {count} rows have no invertible covariance of {dim} dimensions; "
            f"use more rows than dimensions, or eps > 0"
        )
    centred = z - z.mean(-2, keepdim=True)
    covariance = centred.mT @ centred / (count - 1)  # [..., D, D]
    if eps > 0:
        scale = covariance.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=_LEAST)
        eye = torch.eye(dim, dtype=z.dtype, device=z.device)
        covariance = (1 - eps) * covariance + eps * scale[..., None, None] * eye
    factor = torch.linalg.cholesky(covariance)
    white: Tensor = torch.linalg.solve_triangular(factor, centred.mT, upper=False).mT
    return white


@full_precision
def w_mse(
    *views: Tensor, size: int | None = None, order: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Mean over pairs of views of 2 - 2 cos of whitened embeddings (W-MSE: Ermolov et al. 2021).

    Arguments:
        views: V >= 2 tensors `[B, D]`; row b of each is one sample. They are whitened over the
            batch of all replicas, N rows, each view by itself.
        size: rows that are whitened together; N must be a multiple. None for all. The paper takes
            2 D and more.
        order: int64 `[R, N]`: R permutations of the rows, the same on every replica, each cut into
            runs of `size`; the loss is their mean. None for the order as it is. Draw them anew
            every step.
        eps: see `whiten`; the paper's 0 fails on collapsed embeddings.

    Range [0, 4]. Constant (collapsed) embeddings cost 2.
    """
    if len(views) < 2 or any(z.dim() != 2 or z.shape != views[0].shape for z in views):
        shapes = ", ".join(str(tuple(z.shape)) for z in views)
        raise ValueError(f"w_mse: at least two views of one shape [B, D] needed, got {shapes}")
    z = torch.stack([gather(view) for view in views])  # [V, N, D]
    total, batch = z.shape[1], views[0].shape[0]
    size = total if size is None else size
    if size < 2 or total % size:
        raise ValueError(f"w_mse: size must divide the {total} rows of all replicas, got {size}")
    if order is None:
        order = torch.arange(total, device=z.device).unsqueeze(0)
    mine = slice(rank() * batch, (rank() + 1) * batch)
    loss = z.new_zeros(())
    for permutation in order:
        groups = z[:, permutation].unflatten(1, (-1, size))  # [V, N / size, size, D]
        white = F.normalize(whiten(groups, eps=eps).flatten(1, 2), dim=2)  # [V, N, D]
        here = white[:, permutation.argsort()[mine]]  # [V, B, D]
        for a, b in combinations(here, 2):
            loss = loss + (2 - 2 * (a * b).sum(1)).mean()
    pairs = len(views) * (len(views) - 1) // 2
    return loss / (order.shape[0] * pairs)
