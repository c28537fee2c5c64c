"""Regularisers that spread embeddings over the sphere or assignments over prototypes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import all_mean, all_sum, rank, world_size
from ssl_core.distributed import gather as gather_rows
from ssl_core.objectives.partition import row_chunks
from ssl_core.objectives.precision import full_precision


@full_precision
def koleo(z: Tensor, *, eps: float = 1e-8, gather: bool = True) -> Tensor:
    """-mean_i log(||z_i - z_nn(i) + eps|| + eps) of unit rows (Sablayrolles et al. 2019; DINOv2).

    `z` is `[B, D]`, normalised inside; the neighbour is the row of largest cosine among the other
    rows, of all replicas when gathering (the release looks at its own only), and receives
    gradient too. Orthonormal rows cost -log(2) / 2; exact duplicates (collapsed) about
    18.4 - log(1 + sqrt D), with a gradient that is huge and meaningless.
    """
    unit = F.normalize(z, dim=1)
    everyone = gather_rows(unit) if gather else unit  # [N, D]
    if everyone.shape[0] < 2:
        raise ValueError("koleo: a neighbour needs at least 2 samples, got 1")
    first = rank() * unit.shape[0] if gather else 0
    neighbour = _nearest_other(unit.detach(), everyone.detach(), first)
    distance = (unit - everyone[neighbour] + eps).norm(dim=1)
    loss: Tensor = -(distance + eps).log().mean()
    return loss


def _nearest_other(rows: Tensor, everyone: Tensor, first: int) -> Tensor:
    """Index of the most similar other row, `[B]`; row i is `everyone[first + i]`."""
    found = []
    for part in row_chunks(rows.shape[0], everyone.shape[0], rows.device.type):
        similar = rows[part] @ everyone.T
        similar.diagonal(first + part.start).fill_(-torch.inf)
        found.append(similar.argmax(1))
    return torch.cat(found)


@full_precision
def spectrum_flatness(z: Tensor) -> Tensor:
    """||z'z / N - I / D||_F^2 of unit rows `[B, D]` over all replicas.

    0 for a tight frame, 1 - 1/D when collapsed (the singular-value term of MSBReg, 2022).
    """
    unit = F.normalize(z, dim=1)
    count, dim = unit.shape[0] * world_size(), unit.shape[1]
    # ||C - I/D||^2 = ||C||^2 - 2 tr C / D + 1 / D, and unit rows have tr C = 1.
    if count >= dim:
        return (all_sum(unit.T @ unit) / count).square().sum() - 1 / dim
    rows = gather_rows(unit)
    return (rows @ rows.T).square().sum() / count**2 - 1 / dim


@full_precision
def me_max(probabilities: Tensor) -> Tensor:
    """log K - H(mean probabilities) over all rows `[..., K]` of all replicas (PAWS, MSN).

    0 when prototypes share the rows evenly, log K when one takes them all. Without the constant
    it is the negative mean entropy of the papers.
    """
    mean = all_mean(probabilities.flatten(0, -2).mean(0))  # [K]
    loss: Tensor = math.log(mean.shape[0]) - torch.special.entr(mean).sum()
    return loss
