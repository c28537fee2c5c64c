"""Predicting one representation from another: cosine and distance losses.

The target (second argument) never receives a gradient.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.masked import masked_mean
from ssl_core.objectives.precision import full_precision


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of corresponding rows, `[..., D], [..., D] -> [...]`."""
    return (F.normalize(x, dim=-1) * F.normalize(y, dim=-1)).sum(-1)


@full_precision
def negative_cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """-cos(p, sg t), mean over rows `[..., D]` (SimSiam: Chen & He 2021, eq. 1).

    Normalises both. Range [-1, 1]; -1 when collapsed, so it never shows a collapse.
    """
    return -_cosine(predicted, target.detach()).mean()


def byol(predicted0: Tensor, predicted1: Tensor, target0: Tensor, target1: Tensor) -> Tensor:
    """Sum over the two directions of 2 - 2 cos(p, sg t) (BYOL: Grill et al. 2020, eq. 2).

    `predicted0` is compared with `target1`, the teacher's projection of the other view, and
    `predicted1` with `target0`; all are `[B, D]` and are normalised inside. Mean over rows.
    Range [0, 8]; 0 when collapsed.
    """
    return 4 + 2 * (negative_cosine(predicted0, target1) + negative_cosine(predicted1, target0))


@full_precision
def mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of (p - sg t)^2 over all entries; nothing is normalised. 0 when collapsed."""
    return F.mse_loss(predicted, target.detach())


@full_precision
def smooth_l1(predicted: Tensor, target: Tensor, *, beta: float = 1.0) -> Tensor:
    """Huber-like loss over all entries: d^2 / (2 beta) below `beta`, |d| - beta/2 above.

    Girshick 2015; data2vec and I-JEPA use it on normalised teacher features. Mean over entries;
    nothing is normalised here.
    """
    return F.smooth_l1_loss(predicted, target.detach(), beta=beta)


@full_precision
def scaled_cosine(
    predicted: Tensor, target: Tensor, *, alpha: float = 3.0, weight: Tensor | None = None
) -> Tensor:
    """(1 - cos(x, sg y))^alpha, mean over rows (GraphMAE: Hou et al. 2022, eq. 2).

    `predicted` and `target` are `[..., D]` and are normalised inside. `weight` (`[...]`, usually
    the bool map of hidden tokens) makes it the mean over those rows, counted over all replicas.
    Perfect 0, orthogonal 1, opposite 2^alpha. `alpha` >= 1 discounts easy rows.
    """
    if alpha < 1:
        raise ValueError(f"scaled_cosine: alpha must be at least 1, got {alpha}")
    # Rounding can push a cosine past 1, and a negative base has no real power.
    error = (1 - _cosine(predicted, target.detach())).clamp(min=0) ** alpha
    return error.mean() if weight is None else masked_mean(error, weight)
