"""Cutting grids into patches and back, and embedding patches; 1, 2 or 3 axes.

A patch's numbers are in MAE's order: its rows, columns, then channels, the channel fastest.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.errors import UserError

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def patch_grid(sides: tuple[int, ...], patch: tuple[int, ...]) -> tuple[int, ...]:
    """How many patches lie along each axis; raises `UserError` where they do not fit."""
    if len(sides) != len(patch) or any(s < p or s % p for s, p in zip(sides, patch, strict=True)):
        raise UserError(
            f"input of size {'x'.join(map(str, sides))} cannot be cut into patches of "
            f"{'x'.join(map(str, patch))}; choose view sizes (views.size, and "
            "views.local_size where there is one) that are multiples of the patch"
        )
    return tuple(s // p for s, p in zip(sides, patch, strict=True))


def patchify(x: Tensor, patch: tuple[int, ...]) -> Tensor:
    """`[B, C, *sides]` to patches `[B, N, prod(patch) * C]` in raster order."""
    axes = len(patch)
    grid = patch_grid(tuple(x.shape[2:]), patch)
    # Channels first go last, all at once: from there whole rows of a patch lie together.
    x = x.movedim(1, -1).contiguous()
    split = [size for pair in zip(grid, patch, strict=True) for size in pair]
    x = x.view(x.shape[0], *split, -1)  # [B, g0, p0, g1, p1, ..., C]
    cells, inside = range(1, 1 + 2 * axes, 2), range(2, 2 + 2 * axes, 2)
    x = x.permute(0, *cells, *inside, -1)  # [B, g..., p..., C]
    return x.reshape(x.shape[0], math.prod(grid), -1)


def unpatchify(patches: Tensor, patch: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    """The inverse of `patchify`: `[B, N, prod(patch) * C]` to `[B, C, *sides]`."""
    axes = len(patch)
    x = patches.reshape(patches.shape[0], *grid, *patch, -1)  # [B, g..., p..., C]
    pairs = [i for axis in range(axes) for i in (1 + axis, 1 + axes + axis)]
    x = x.permute(0, 2 * axes + 1, *pairs)  # [B, C, g0, p0, g1, p1, ...]
    sides = [g * p for g, p in zip(grid, patch, strict=True)]
    return x.reshape(*x.shape[:2], *sides)


class PatchEmbed(nn.Module):
    """Linear embedding of patches (Dosovitskiy et al. 2021).

    The weight is that of a convolution with kernel = stride, under timm's name `proj`, but it is
    applied to patches already cut, `[B, N, P] -> [B, N, D]`, so that a masked encoder embeds the
    visible ones alone.
    """

    def __init__(self, channels: int, patch: tuple[int, ...], dim: int) -> None:
        super().__init__()
        if len(patch) not in _CONV:
            raise ValueError(f"patches have 1, 2 or 3 axes, got {patch}")
        self.patch = patch
        self.proj = _CONV[len(patch)](channels, dim, kernel_size=patch, stride=patch)  # type: ignore[arg-type]
        nn.init.xavier_uniform_(self.proj.weight.view(dim, -1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    @property
    def token_dim(self) -> int:
        """Numbers in a patch."""
        return self.proj.in_channels * math.prod(self.patch)

    def forward(self, patches: Tensor) -> Tensor:
        weight = self.proj.weight.movedim(1, -1).flatten(1)  # [D, C, p...] -> [D, p... C]
        return F.linear(patches, weight, self.proj.bias)
