"""VICReg between matched places of feature maps (VICRegL: Bardes, Ponce & LeCun 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.precision import full_precision
from ssl_core.objectives.redundancy import covariance_penalty, variance_hinge, vicreg


def best_matches(
    places: Tensor, candidates: Tensor, distance: Tensor, *, count: int | None = None
) -> tuple[Tensor, Tensor]:
    """The `count` places whose nearest candidate is nearest, and those candidates.

    `places` `[B, N, D]`, `candidates` `[B, M, D]`, `distance` `[B, N, M]`; returns two
    `[B, count, D]`, best first. `count` None or above N keeps all.
    """
    best, nearest = distance.min(2)  # [B, N]
    count = best.shape[1] if count is None else min(count, best.shape[1])
    kept = best.topk(count, dim=1, largest=False).indices  # [B, count]
    row = torch.arange(best.shape[0], device=best.device).unsqueeze(1)
    return places[row, kept], candidates[row, nearest[row, kept]]


@full_precision
def vicregl_local(
    map0: Tensor,
    map1: Tensor,
    where0: Tensor,
    where1: Tensor,
    *,
    matches: tuple[int, int] = (20, 4),
    feature_matches: tuple[int, int] | None = None,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """VICReg of places matched by features plus of places matched by position, both ways.

    `map0` `[B, N, D]` and `map1` `[B, M, D]` are projected places; `where` are their centres in
    the original image, `[B, N, 2]` and `[B, M, 2]` (mirrored if the crop was). Statistics are taken
    slot by slot of the matches; variances and covariances are means of both sides.
    `matches[0]` best places of map0 and `matches[1]` of map1 are kept by position;
    `feature_matches` by features, where the release takes all (None).
    """
    by_feature = torch.cdist(map0.detach(), map1.detach())
    by_place = torch.cdist(where0.to(map0.dtype), where1.to(map0.dtype))
    total = map0.new_zeros(())
    for distance, counts in (
        (by_feature, feature_matches or (None, None)),
        (by_place, matches),
    ):
        forth = best_matches(map0, map1, distance, count=counts[0])
        back = best_matches(map1, map0, distance.mT, count=counts[1])
        for a, b in (forth, back):
            # Half of the covariance weight: `vicreg` sums both sides where this takes their mean.
            weights = {"invariance": invariance, "variance": variance, "covariance": covariance / 2}
            total = total + vicreg(a, b, eps=eps, **weights) / 2
    return total


@full_precision
def vicregl(
    pooled: Sequence[Tensor],
    maps: Sequence[Tensor],
    where: Sequence[Tensor],
    *,
    global_views: int = 2,
    alpha: float = 0.75,
    matches: tuple[int, int] = (20, 4),
    feature_matches: tuple[int, int] | None = None,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> Tensor:
    """alpha * global + (1 - alpha) * local VICReg of many views.

    Arguments: for each view `pooled` `[B, D]`, `maps` `[B, N, D']` and `where` `[B, N, 2]`, the
    first `global_views` of large crops. Pairs are (i, j) with i global and j != i: the invariance
    and the local terms (`vicregl_local`) are means over pairs, variance and covariance means over
    views. With alpha = 1 and two views: `vicreg` with half of its covariance term.
    """
    pairs = [(i, j) for i in range(global_views) for j in range(len(pooled)) if i != j]
    close = torch.stack([F.mse_loss(pooled[i], pooled[j]) for i, j in pairs]).mean()
    hinge = torch.stack([variance_hinge(z, eps=eps) for z in pooled]).mean()
    spread = torch.stack([covariance_penalty(z) for z in pooled]).mean()
    total = alpha * (invariance * close + variance * hinge + covariance * spread)
    for i, j in pairs if alpha < 1 else []:
        local = vicregl_local(
            maps[i],
            maps[j],
            where[i],
            where[j],
            matches=matches,
            feature_matches=feature_matches,
            invariance=invariance,
            variance=variance,
            covariance=covariance,
            eps=eps,
        )
        total = total + (1 - alpha) * local / len(pairs)
    return total
