"""Ranking losses: a positive should be nearer than selected negatives, by a margin."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import gather as gather_rows
from ssl_core.distributed import rank
from ssl_core.objectives.precision import full_precision

Distance = Literal["euclidean", "squared", "cosine"]
Select = Literal["hardest", "semi_hard", "median", "band", "all"]


def _distances(a: Tensor, b: Tensor, kind: Distance) -> Tensor:
    """Between unit rows `[B, D]` and `[N, D]`: `[B, N]`."""
    cosine = a @ b.T
    if kind == "cosine":
        return -2 * cosine
    squared = (2 - 2 * cosine).clamp(min=0)
    if kind == "squared":
        return squared
    # The root has no slope at zero; equal embeddings then get none instead of an infinite one.
    tiny = torch.finfo(squared.dtype).eps ** 2
    return torch.where(squared > tiny, squared.clamp(min=tiny).sqrt(), torch.zeros_like(squared))


@full_precision
def triplet(
    anchors: Tensor,
    positives: Tensor,
    *,
    margin: float = 0.2,
    select: Select = "semi_hard",
    band: tuple[int, int] = (1, 10),
    positive_weight: float = 1.0,
    distance: Distance = "euclidean",
    labels: Tensor | None = None,
    gather: bool = True,
) -> Tensor:
    """mean_i max(0, margin + positive_weight * d(a_i, p_i) - d(a_i, n_i)).

    Arguments:
        anchors, positives: `[B, D]`, row by row the same sample, normalised inside. The positives
            of the other samples are the negatives. Gradients flow to both: detach a teacher's.
        margin, positive_weight: the Median Triplet paper has 100 and 2 with distance "cosine".
        select: which negative counts (Schroff et al. 2015; Wang et al. 2021):
            "hardest" the nearest; "semi_hard" the nearest that is farther than the positive, or
            where there is none the farthest; "median" the lower middle one; "band" the mean
            distance of those ranked band[0] up to band[1], counted from the nearest at 0 (the
            released Median Triplet code drops the nearest and takes the next nine); "all" every
            one, the mean of the losses.
        distance: of unit vectors; "cosine" means -2 cos.
        labels: int64 `[B]`; positives of an equal label are no negatives.
        gather: negatives also from the other replicas.

    Collapsed value: `margin` ("cosine": margin + 2 - 2 positive_weight). An anchor without any
    negative costs 0 and counts in the mean.
    """
    if anchors.dim() != 2 or anchors.shape != positives.shape:
        raise ValueError(
            f"triplet: anchors and positives of one shape [B, D] are needed, "
            f"got {tuple(anchors.shape)} and {tuple(positives.shape)}"
        )
    a, p = F.normalize(anchors, dim=1), F.normalize(positives, dim=1)
    everyone = gather_rows(p) if gather else p  # [N, D]
    first = rank() * a.shape[0] if gather else 0
    d = _distances(a, everyone, distance)  # [B, N]
    column = torch.arange(first, first + a.shape[0], device=a.device).unsqueeze(1)
    near = d.gather(1, column)  # [B, 1]
    if labels is None:
        allowed = torch.ones_like(d, dtype=torch.bool).scatter(1, column, False)
    else:
        known = gather_rows(labels) if gather else labels
        allowed = labels.unsqueeze(1) != known.unsqueeze(0)
    far, kept = _negatives(d, near, allowed, select, band)  # [B, M] each
    losses = torch.relu(margin + positive_weight * near - far)
    count = kept.sum(1)
    return (torch.where(kept, losses, 0.0).sum(1) / count.clamp(min=1)).mean()


def _negatives(
    d: Tensor, near: Tensor, allowed: Tensor, select: Select, band: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Distances to the selected negatives `[B, M]` and which of them exist."""
    if select == "all":
        return d, allowed
    some = allowed.any(1, keepdim=True)
    hidden = torch.where(allowed, d, torch.inf)
    if select == "hardest":
        chosen = hidden.argmin(1, keepdim=True)
    elif select == "semi_hard":
        beyond = torch.where(allowed & (d > near), d, torch.inf)
        farthest = torch.where(allowed, d, -torch.inf).argmax(1, keepdim=True)
        chosen = torch.where(
            beyond.isfinite().any(1, keepdim=True), beyond.argmin(1, keepdim=True), farthest
        )
    else:
        order = hidden.argsort(1)  # negatives first, nearest first
        count = allowed.sum(1, keepdim=True)
        if select == "median":
            chosen = order.gather(1, ((count - 1) // 2).clamp(min=0))
        elif select == "band":
            start, stop = band
            if not 0 <= start < stop or int(count.min()) < stop:
                raise ValueError(
                    f"triplet: band {band} needs at least {stop} negatives an anchor, "
                    f"got {int(count.min())}; use a larger batch or a smaller band"
                )
            chosen = order[:, start:stop]
        else:
            raise ValueError(f"triplet: unknown select {select!r}")
    picked = d.gather(1, chosen)
    return (picked.mean(1, keepdim=True) if select == "band" else picked), some


@full_precision
def margin_contrastive(
    z0: Tensor,
    z1: Tensor,
    *,
    margin: float = 1.0,
    positive_margin: float = 0.0,
    power: float = 2.0,
    distance: Distance = "euclidean",
    gather: bool = True,
) -> Tensor:
    """mean_i relu(d_ii - positive_margin)^power + mean_{i != j} relu(margin - d_ij)^power.

    Pairs `[B, D]`, normalised inside (Hadsell, Chopra & LeCun 2006 with power 2). Negatives are
    the other rows of `z1`, of all replicas when gathering. Collapsed value: margin^power.
    """
    if z0.dim() != 2 or z0.shape != z1.shape:
        raise ValueError(
            f"margin_contrastive: two views of one shape [B, D] are needed, "
            f"got {tuple(z0.shape)} and {tuple(z1.shape)}"
        )
    a, b = F.normalize(z0, dim=1), F.normalize(z1, dim=1)
    everyone = gather_rows(b) if gather else b
    first = rank() * a.shape[0] if gather else 0
    d = _distances(a, everyone, distance)  # [B, N]
    column = torch.arange(first, first + a.shape[0], device=a.device).unsqueeze(1)
    near = torch.relu(d.gather(1, column) - positive_margin) ** power
    far = (torch.relu(margin - d) ** power).scatter(1, column, 0.0)
    return near.mean() + far.sum() / (a.shape[0] * max(1, everyone.shape[0] - 1))
