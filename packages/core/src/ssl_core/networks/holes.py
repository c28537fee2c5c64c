"""Filling holes: where they are, what decodes them, what judges the result (context encoders)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.networks.pyramid import UpBlock

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def inside_boxes(start: Sequence[Tensor], size: int, sides: Sequence[int]) -> Tensor:
    """True inside the box of `size` that begins at `start` (int64 `[B]` an axis): `[B, *sides]`."""
    inside: Tensor | None = None
    for first, side in zip(start, sides, strict=True):
        index = torch.arange(side, device=first.device)
        axis = (index >= first[:, None]) & (index < first[:, None] + size)  # [B, side]
        if inside is None:
            inside = axis
        else:
            inside = inside.unsqueeze(-1) & axis.reshape(-1, *[1] * (inside.dim() - 1), side)
    assert inside is not None
    return inside


def at_boxes(x: Tensor, start: Sequence[Tensor], size: int) -> Tensor:
    """What `[B, C, *sides]` holds in those boxes: `[B, C, size, ...]`."""
    axes = len(start)
    index = [torch.arange(x.shape[0], device=x.device).reshape(-1, *[1] * axes)]
    for axis, first in enumerate(start):
        cells = first[:, None] + torch.arange(size, device=x.device)  # [B, size]
        shape = [1] * axes
        shape[axis] = size
        index.append(cells.reshape(-1, *shape))
    return x.movedim(1, -1)[tuple(index)].movedim(-1, 1)


def doublings(size: int) -> int:
    """How often 4 doubles to `size`; `ValueError` where it never does."""
    steps = round(math.log2(size / 4)) if size >= 4 else -1
    if steps < 0 or 4 * 2**steps != size:
        raise ValueError(f"hole must be 4, 8, 16, 32... cells a side, got {size}")
    return steps


class HoleDecoder(nn.Module):
    """A vector `[B, D]` to content `[B, C, size, ...]`: linear to 4 cells a side, then doubled."""

    def __init__(self, in_dim: int, out_dim: int, *, size: int, dim: int, axes: int) -> None:
        super().__init__()
        steps = doublings(size)
        if dim % 2**steps:
            raise ValueError(f"decoder width {dim} must be a multiple of {2**steps}")
        self.shape = (dim, *[4] * axes)
        self.linear = nn.Linear(in_dim, math.prod(self.shape))
        self.blocks = nn.ModuleList(
            UpBlock(dim // 2**step, dim // 2 ** (step + 1), axes=axes) for step in range(steps)
        )
        self.out = _CONV[axes](dim // 2**steps, out_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x).unflatten(1, self.shape)
        for block in self.blocks:
            x = block(torch.relu(x))
        return self.out(torch.relu(x))  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    """`[B, C, size, ...]` to one logit a sample: halvings to 4 cells a side, then linear."""

    def __init__(self, in_dim: int, *, size: int, dim: int, axes: int) -> None:
        super().__init__()
        steps = doublings(size)
        widths = [in_dim, *(max(8, dim // 2 ** (steps - step)) for step in range(1, steps + 1))]
        layers: list[nn.Module] = []
        for step in range(steps):
            conv = _CONV[axes](widths[step], widths[step + 1], 4, stride=2, padding=1)
            layers += [conv, nn.GroupNorm(1, widths[step + 1]), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(widths[-1] * 4**axes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(x).flatten(1)).squeeze(1)  # type: ignore[no-any-return]


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * grads[0], None


def reverse_gradient(x: Tensor, scale: float) -> Tensor:
    """`x`, whose gradient comes back times -`scale`: one loss trains two adversaries."""
    out: Tensor = _Reverse.apply(x, scale)
    return out
