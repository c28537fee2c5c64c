"""Redundancy reduction: statistics of the batch of all replicas, no negatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import all_sum
from ssl_core.objectives.cross_product import centred, cross_product, row_count
from ssl_core.objectives.precision import full_precision


def _hinge(squares: Tensor, count: int, eps: float, target: float = 1.0) -> Tensor:
    return torch.relu(target - (squares / (count - 1) + eps).sqrt()).mean()


def _off_diagonal(squares: Tensor, norm: Tensor, count: int) -> Tensor:
    return (norm - squares.square().sum()) / ((count - 1) ** 2 * squares.numel())


@full_precision
def variance_hinge(z: Tensor, *, target: float = 1.0, eps: float = 1e-4) -> Tensor:
    """mean_d relu(target - sqrt(var_d + eps)) of `[B, ..., D]` over all replicas' rows.

    Variances divide by N - 1. Constant (collapsed) rows cost target - sqrt(eps).
    """
    squares = all_sum(centred(z).square().sum(0))
    return _hinge(squares, row_count(z), eps, target)


@full_precision
def covariance_penalty(z: Tensor) -> Tensor:
    """sum_{i != j} cov_ij^2 / D of `[B, ..., D]` over all replicas' rows, mean over slots.

    Covariances divide by N - 1. 0 when collapsed.
    """
    return _off_diagonal(*cross_product(z, z), row_count(z))


def _check_pair(name: str, z0: Tensor, z1: Tensor) -> None:
    if z0.dim() < 2 or z0.shape != z1.shape:
        raise ValueError(
            f"{name}: two views of one shape [B, D] are needed, "
            f"got {tuple(z0.shape)} and {tuple(z1.shape)}"
        )


@full_precision
def barlow_twins(
    z0: Tensor, z1: Tensor, *, lambd: float = 0.0051, scale: float = 1.0, eps: float = 1e-5
) -> Tensor:
    """scale * [sum_i (1 - C_ii)^2 + lambd * sum_{i != j} C_ij^2] (Zbontar et al. 2021, eq. 1).

    C is the cross-correlation `[D, D]` of projections `[B, D]`, each dimension standardised over
    the batch of all replicas with the biased variance plus `eps`. A sum over dimensions. Constant
    (collapsed) embeddings cost `scale * D`.
    """
    _check_pair("barlow_twins", z0, z1)
    count = row_count(z0)
    diagonal, norm = cross_product(z0, z1, eps=eps)
    diagonal = diagonal / count
    off_diagonal = norm / count**2 - diagonal.square().sum()
    return scale * ((1 - diagonal).square().sum() + lambd * off_diagonal)


@full_precision
def vicreg_parts(
    z0: Tensor,
    z1: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> dict[str, Tensor]:
    """The three weighted terms of `vicreg`, by name; their sum is the loss.

    `[B, ..., D]` are taken slot by slot: covariances within a slot, means over slots.
    """
    _check_pair("vicreg", z0, z1)
    count, hinge, spread = row_count(z0), z0.new_zeros(()), z0.new_zeros(())
    for z in (z0, z1):
        squares, norm = cross_product(z, z)
        hinge = hinge + _hinge(squares, count, eps) / 2
        spread = spread + _off_diagonal(squares, norm, count)
    return {
        "invariance": invariance * F.mse_loss(z0, z1),
        "variance": variance * hinge,
        "covariance": covariance * spread,
    }


def vicreg(
    z0: Tensor,
    z1: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """Variance-invariance-covariance regularisation (Bardes et al. 2022, eq. 6).

    invariance * mean((z0 - z1)^2) over B and D
    + variance * half the sum over views of mean_d relu(1 - sqrt(var_d + eps))
    + covariance * the sum over views of sum_{i != j} cov_ij^2 / D

    for projections `[B, D]`; variances and covariances divide by N - 1 over the batch of all
    replicas. Nothing is normalised. Constant (collapsed) embeddings cost 25 * 0.99 = 24.75.
    """
    parts = vicreg_parts(
        z0, z1, invariance=invariance, variance=variance, covariance=covariance, eps=eps
    )
    return parts["invariance"] + parts["variance"] + parts["covariance"]
