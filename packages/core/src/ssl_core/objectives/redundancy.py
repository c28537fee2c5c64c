"""Redundancy reduction: statistics of the batch of all replicas, no negatives.

Sums of squares of a D x D (cross-)covariance are taken from the N x N Gram matrices when the
batch is smaller than the width: ||A'B||^2 = <AA', BB'>. The D x D matrix is then never formed,
at no loss of exactness.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_core.distributed import all_sum, gather, rank, world_size
from ssl_core.objectives.precision import full_precision


def _moments(z: Tensor) -> tuple[Tensor, Tensor, int]:
    """Rows `[B, ..., D]` centred over all replicas' rows, sums of squares `[..., D]`, rows."""
    count = z.shape[0] * world_size()
    if count < 2:
        raise ValueError("statistics over a batch need at least 2 samples, got 1")
    # Forms whose gradients take the fewest passes over z: no difference, square or quotient.
    centred = z + all_sum(z.sum(0)) / -count
    return centred, all_sum((centred * centred).sum(0)), count


def _product_norm(a: Tensor, b: Tensor, count: int) -> Tensor:
    """||a'b||_F^2 over all replicas' rows, for `[B, ..., D]` each, summed over the slots `...`."""
    result: Tensor = _ProductNorm.apply(a.movedim(0, -2), b.movedim(0, -2), count, b is a)
    return result


class _ProductNorm(torch.autograd.Function):
    """Of `[..., B, D]`. The gradient with respect to a is 2 (bb') a = 2 b (b'a), whichever is less.

    Autograd would multiply twice as often, not knowing that Gram matrices are symmetric. As the
    value is the same on every replica, so is its gradient: none is exchanged, world_size() times
    the own rows' is what a gathered backward pass would sum to. Not twice differentiable.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, count: int, equal: bool) -> Tensor:
        ctx.equal, ctx.wide = equal, count < a.shape[-1]
        if not ctx.wide:
            product = all_sum(a.mT @ b)  # [..., D, D]
            ctx.save_for_backward(a, b, product)
            return product.square().sum()
        rows_a = _gathered(a)  # [..., N, D]
        rows_b = rows_a if equal else _gathered(b)
        gram_a = rows_a @ rows_a.mT  # [..., N, N]
        gram_b = gram_a if equal else rows_b @ rows_b.mT
        ctx.save_for_backward(rows_a, rows_b, gram_a, gram_b)
        return (gram_a * gram_b).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        scale = upstream[0] * ((4 if ctx.equal else 2) * world_size())
        if ctx.wide:
            rows_a, rows_b, gram_a, gram_b = ctx.saved_tensors
            share = gram_a.shape[-1] // world_size()
            own = slice(rank() * share, (rank() + 1) * share)
            to_a = (gram_b[..., own, :] * scale) @ rows_a
            to_b = None if ctx.equal else (gram_a[..., own, :] * scale) @ rows_b
        else:
            a, b, product = ctx.saved_tensors
            product = product * scale
            to_a = b @ product.mT
            to_b = None if ctx.equal else a @ product
        return to_a, to_b, None, None


def _gathered(rows: Tensor) -> Tensor:
    """All replicas' rows, `[..., B, D] -> [..., N, D]`."""
    return gather(rows.movedim(-2, 0).contiguous()).movedim(0, -2) if world_size() > 1 else rows


def _hinge(squares: Tensor, count: int, eps: float, target: float = 1.0) -> Tensor:
    return torch.relu(target - (squares / (count - 1) + eps).sqrt()).mean()


def _off_diagonal(centred: Tensor, squares: Tensor, count: int) -> Tensor:
    squared = _product_norm(centred, centred, count) - squares.square().sum()
    return squared / ((count - 1) ** 2 * squares.numel())


@full_precision
def variance_hinge(z: Tensor, *, target: float = 1.0, eps: float = 1e-4) -> Tensor:
    """mean_d relu(target - sqrt(var_d + eps)) of `[B, ..., D]` over all replicas' rows.

    Variances divide by N - 1. Constant (collapsed) rows cost target - sqrt(eps).
    """
    _, squares, count = _moments(z)
    return _hinge(squares, count, eps, target)


@full_precision
def covariance_penalty(z: Tensor) -> Tensor:
    """sum_{i != j} cov_ij^2 / D of `[B, ..., D]` over all replicas' rows, mean over slots.

    Covariances divide by N - 1. 0 when collapsed.
    """
    return _off_diagonal(*_moments(z))


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
    unit = []
    for z in (z0, z1):
        centred, squares, count = _moments(z)
        unit.append(centred * (squares / count + eps).rsqrt())
    diagonal = all_sum((unit[0] * unit[1]).sum(0)) / count  # [D]
    off_diagonal = _product_norm(unit[0], unit[1], count) / count**2 - diagonal.square().sum()
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
    hinge, spread = z0.new_zeros(()), z0.new_zeros(())
    for z in (z0, z1):
        centred, squares, count = _moments(z)
        hinge = hinge + _hinge(squares, count, eps) / 2
        spread = spread + _off_diagonal(centred, squares, count)
    return {
        "invariance": invariance * (z0 - z1).square().mean(),
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
