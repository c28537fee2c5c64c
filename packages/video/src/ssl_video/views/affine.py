"""One affine map for a whole clip, with its parameters as the label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.rng import Rng

PARAMETERS = ("turn", "shift y", "shift x", "scale", "shear")


@dataclass(frozen=True)
class Affine:
    """Turn (degrees, clockwise), shift (share of the side), scale (factor), shear (degrees).

    Each is drawn evenly from plus or minus its largest value; scale is exp of the draw. Outside
    the picture the border is repeated.
    """

    turn: float = 30.0
    shift: float = 0.15
    scale: float = 1.25
    shear: float = 15.0

    def __post_init__(self) -> None:
        if min(self.turn, self.shift, self.shear) < 0 or self.scale < 1:
            raise ValueError(f"affine strengths must be >= 0 and scale >= 1, got {self}")

    def sample(self, rng: Rng) -> Tensor:
        """The parameters in the order of `PARAMETERS`, normalised to -1..1: float32 `[B, 5]`."""
        return rng.uniform("affine", len(PARAMETERS), low=-1.0, high=1.0)

    def matrix(self, params: Tensor) -> Tensor:
        """From output to input places, in units of half the side (x, y): `[B, 2, 3]`.

        Zero parameters give the identity.
        """
        turn = params[:, 0] * math.radians(self.turn)
        shear = (params[:, 4] * math.radians(self.shear)).tan()
        scale = (params[:, 3] * math.log(self.scale)).exp()
        cos, sin = turn.cos() / scale, turn.sin() / scale
        columns = [cos, cos * shear + sin, -sin, cos - sin * shear]
        linear = torch.stack(columns, dim=1).unflatten(1, (2, 2))
        moved = torch.stack([params[:, 2], params[:, 1]], dim=1) * (2 * self.shift)
        return torch.cat([linear, -moved.unsqueeze(2)], dim=2)

    def apply(self, x: Tensor, params: Tensor) -> Tensor:
        """Every frame of `[B, C, T, H, W]` under its clip's map, bilinear."""
        frames = x.shape[2]
        images = x.transpose(1, 2).flatten(0, 1)  # [B T, C, H, W]
        grid = F.affine_grid(
            self.matrix(params).repeat_interleave(frames, 0).to(x.dtype),
            list(images.shape),
            align_corners=False,
        )
        moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return moved.unflatten(0, (-1, frames)).transpose(1, 2).contiguous()
