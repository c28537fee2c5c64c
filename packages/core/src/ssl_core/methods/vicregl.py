"""VICRegL (Bardes, Ponce & LeCun, NeurIPS 2022): VICReg of whole views and of matched places.

    L = alpha VICReg(pooled) + (1 - alpha) [by features + by position] VICReg(matched places)

Places of two views are matched by their nearest features, and by their nearest positions in the
original, which the crops' boxes and mirrorings tell. The best `matches` of a global view, and
fewer of a local one, are kept by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import vicregl
from ssl_core.views import View, ViewPolicy


@dataclass
class Reps:
    """Of each view, global ones first: projections, projected places, where those lie."""

    pooled: list[Tensor]
    maps: list[Tensor]
    where: list[Tensor]


class VICRegL(Method):
    """Encoder with a feature map, a projector for the whole and one for places."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 8192,
        dim: int = 8192,
        local_hidden: int = 512,
        local_dim: int = 512,
        layers: int = 3,
        alpha: float = 0.75,
        matches: tuple[int, int] = (20, 4),
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers, last_bias=False)
        self.local_projector = MLPHead(
            width, local_dim, hidden=local_hidden, layers=layers, last_bias=False
        )
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha must lie in [0, 1), got {alpha}; with 1 it is vicreg")
        self.alpha = alpha
        self.matches = (int(matches[0]), int(matches[1]))
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.global_views = 2

    def encode(self, views: Sequence[View]) -> Reps:
        ordered = sorted(views, key=lambda view: view.role != "global")
        self.global_views = sum(view.role == "global" for view in ordered)
        features = self.features(ordered, joint=False)
        maps = [local_tokens(f) for f in features]
        return Reps(
            [self.projector(f.pooled) for f in features],
            [self.local_projector(m.flatten(0, 1)).unflatten(0, m.shape[:2]) for m in maps],
            [places(view, f.grid) for view, f in zip(ordered, features, strict=True)],
        )

    def loss(self, reps: Reps) -> Loss:
        loss = vicregl(
            reps.pooled,
            reps.maps,
            reps.where,
            global_views=self.global_views,
            alpha=self.alpha,
            matches=self.matches,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
        )
        return Loss.of({"vicregl": loss})


def places(view: View, grid: tuple[int, ...]) -> Tensor:
    """Centres `[B, N, axes]` of a crop's cells in its original.

    Images tell `boxes` and `flip` (row, column in pixels), scans `centre` and `matrix` (mm).
    """
    if "matrix" in view.params and view.params["matrix"].shape[1] == len(grid):
        sides = view.data.shape[2:]
        axes = [
            ((torch.arange(n, device=view.data.device) + 0.5) / n - 0.5) * side
            for n, side in zip(grid, sides, strict=True)
        ]
        steps = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)  # [N, n]
        matrix, centre = view.params["matrix"], view.params["centre"]
        where: Tensor = steps.to(matrix) @ matrix.mT + centre[:, None]
        return where
    if "boxes" not in view.params or "flip" not in view.params or len(grid) != 2:
        raise UserError(
            "places of views are matched by position: the views must tell where they lie (`boxes` "
            "and `flip` of images, `centre` and `matrix` of scans); choose other views"
        )
    boxes, flip = view.params["boxes"].float(), view.params["flip"]
    top, left, height, width = boxes.unbind(1)
    rows, columns = ((torch.arange(n, device=boxes.device) + 0.5) / n for n in grid)
    y = top[:, None] + height[:, None] * rows  # [B, h]
    across = torch.where(flip[:, None], 1 - columns, columns)
    x = left[:, None] + width[:, None] * across  # [B, w]
    pairs = torch.stack(torch.broadcast_tensors(y[:, :, None], x[:, None, :]), dim=-1)
    return pairs.flatten(1, 2)


def local_tokens(features: Features) -> Tensor:
    """The encoder's map as places `[B, N, D]`."""
    if features.tokens is None:
        raise UserError("encoder: places are matched on a feature map, and this one has none")
    return features.tokens
