"""Histograms of oriented gradients: MaskFeat's target (Wei et al. 2022), batched on any device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.precision import full_precision


@torch.no_grad()
@full_precision
def hog(images: Tensor, *, bins: int = 9, cell: int = 8, flat: float = 1e-6) -> Tensor:
    """Orientation histograms `[B, C, bins, H / cell, W / cell]` of images `[B, C, H, W]`.

    Gradients by Sobel kernels on reflected borders; each pixel gives its magnitude to the bin of
    its unsigned orientation; each cell of `cell` pixels is scaled to unit length, channel by
    channel. Bin 0 begins at a gradient straight down the image. Cells whose histogram is shorter
    than `flat` stay zero: rounding alone would make them unit vectors of noise.
    """
    if images.dim() != 4 or images.shape[2] % cell or images.shape[3] % cell:
        raise ValueError(
            f"hog: images [B, C, H, W] with H and W multiples of cell={cell} are needed, "
            f"got {tuple(images.shape)}"
        )
    batch, channels, height, width = images.shape
    kernel = images.new_tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect").flatten(0, 1).unsqueeze(1)
    both = F.conv2d(padded, torch.stack([kernel, kernel.T]).unsqueeze(1))  # [B C, 2, H, W]
    gx, gy = both[:, 0], both[:, 1]
    magnitude = torch.hypot(gx, gy)
    phase = torch.atan2(gx, gy) / math.pi * bins  # x first, as released
    index = phase.floor().long().remainder(bins)  # [B C, H, W]
    votes = torch.zeros(batch * channels, bins, height, width, device=images.device)
    votes = votes.to(images.dtype).scatter_(1, index.unsqueeze(1), magnitude.unsqueeze(1))
    sums = votes.unfold(2, cell, cell).unfold(3, cell, cell).sum((-1, -2))
    length = sums.norm(dim=1, keepdim=True)
    unit = torch.where(length > flat, sums / length.clamp(min=flat), 0.0)
    cells: Tensor = unit.unflatten(0, (batch, channels))
    return cells


def hog_patches(histograms: Tensor, *, patch_cells: int) -> Tensor:
    """`hog` as tokens: `[B, N, C * bins * patch_cells^2]`, one row a square of `patch_cells` cells.

    Channels slowest, then bins, then cells in reading order; patches in reading order.
    """
    _, _, _, rows, columns = histograms.shape
    if rows % patch_cells or columns % patch_cells:
        raise ValueError(
            f"hog_patches: {rows} x {columns} cells do not divide into squares of {patch_cells}"
        )
    parts = histograms.unfold(3, patch_cells, patch_cells).unfold(4, patch_cells, patch_cells)
    return parts.permute(0, 3, 4, 1, 2, 5, 6).flatten(3).flatten(1, 2)
