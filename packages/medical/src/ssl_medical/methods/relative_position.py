"""Relative position regression (RPR-Loc, Lei et al., MICCAI 2021), of every voxel.

    L = mean ((p_i - p_j) - (c_i - c_j))^2 / 2   over pairs i, j of a scan's voxels, and over axes

p is what a dense network says of a voxel, c where the voxel lies in its scan. With e = p - c the
mean over all pairs is the variance of e, so no pair is ever made. Absolute places are free: where
in its scan a body lies does not matter, and what looks the same place in two scans gets the same
p whatever their contrast.

The paper takes one vector of a patch from a projection of a 3-D network, pairs of patches of one
scan, and bounds the difference by r tanh; here a decoder tells every voxel of all views of a scan,
as segmentation wants it. `contrast` weighs SimCLR's loss on the pooled features of the same views,
which tells scans from one another where positions tell places (global beside local, as Chaitanya
et al. 2020); 0, the paper's, leaves it out. Places are in units of half a block's longest side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.methods.vicregl import places
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import nt_xent
from ssl_core.objectives.precision import full_precision
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy
from ssl_medical.encoders.resnet_nano import CONV
from ssl_medical.encoders.unet_nano import DenseHead, axes_of


class RelativePosition(Method):
    """An encoder, its dense map (`dim` wide where a decoder is added), one layer to places."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        dim: int = 16,
        contrast: float = 0.0,
        hidden: int = 2048,
        projection: int = 128,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(encoder, views)
        if contrast < 0:
            raise ValueError(f"contrast must not be negative, got {contrast}")
        axes = axes_of(encoder)
        self.head = DenseHead(encoder, dim=dim)
        self.position = CONV[axes](self.head.dense_dim, axes, 1)
        if contrast:
            width: int = encoder.embed_dim  # type: ignore[assignment]
            self.projector = MLPHead(width, projection, hidden=hidden)
        self.contrast, self.temperature = contrast, temperature
        self.batch_coupled = contrast > 0
        spec = views.spec  # type: ignore[attr-defined]
        self.unit = max(b * s for b, s in zip(spec["block"][:axes], spec["spacing"], strict=False))

    def encode(self, views: Sequence[View]) -> dict[str, Any]:
        """`error`, p - c of all voxels of all views `[B, V N, axes]`; `z`, projections a view."""
        with dropout_keys(Rng.cat([view.rng for view in views])):
            features, dense = self.head(self.encoder, torch.cat([view.data for view in views]))
        pooled = features.pooled.chunk(len(views))
        self.monitored = pooled[0].detach()
        if len(views) > 1:
            self.monitored_pair = pooled[0].detach(), pooled[1].detach()
        told = self.position(dense).flatten(2).mT.chunk(len(views))
        errors = [p - self._place(view) for p, view in zip(told, views, strict=True)]
        reps: dict[str, Any] = {"error": torch.cat(errors, dim=1)}
        if self.contrast:
            reps["z"] = list(self.projector(features.pooled).chunk(len(views)))
        return reps

    def _place(self, view: View) -> Tensor:
        """Where voxels lie in their scan, `[B, N, axes]`."""
        return places(view, tuple(view.data.shape[2:])) * (2 / self.unit)

    def loss(self, reps: dict[str, Any]) -> Loss:
        parts = {"position": relative_position(reps["error"])}
        if self.contrast:
            parts["nt_xent"] = self.contrast * nt_xent(*reps["z"], temperature=self.temperature)
        return Loss.of(parts)

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """What the network says of each axis: dark at one end of the scan, bright at the other."""
        view = views[0]
        with dropout_keys(view.rng):
            told = self.position(self.head(self.encoder, view.data)[1])
        unit = (told - told.flatten(2).mean(2).view(*told.shape[:2], *[1] * (told.dim() - 2))) / 2
        spec = self.view_policy.spec  # type: ignore[attr-defined]
        seen = (unit + 0.5 - spec["mean"][0]) / spec["std"][0]
        names = ("right", "front", "top")[: told.shape[1]]
        return {f"place told, to the {name}": seen[:, n, None] for n, name in enumerate(names)}


@full_precision
def relative_position(error: Tensor) -> Tensor:
    """The loss above from p - c `[B, N, axes]`; 0 where all of a scan's errors are one shift.

    A constant p (collapse) leaves the variance of the places.
    """
    return error.var(dim=1, correction=0).mean()
