"""Cross-shaped windows (Dong et al., CVPR 2022) on two or three axes: attention along stripes.

Heads and channels are split evenly over the axes; those of an axis attend within bars that run
along all of it and are `stripe` places wide in the others. One layer thus sees a cross. Values get
a depth-wise convolution inside the bar besides (LePE). On two axes this is the paper's block; on
three the bars of CSwin UNet (2025). Widths that do not divide a side shrink to one that does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.networks.attention import attention
from ssl_core.networks.dropout import DropPath
from ssl_core.networks.transformer import Mlp
from ssl_medical.encoders.resnet_nano import CONV, pooled

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class StripeAttention(nn.Module):
    """`[B, *grid, D] -> [B, *grid, D]`; `stripe` 0 is as wide as the grid: attention to all."""

    def __init__(self, dim: int, heads: int, *, axes: int, stripe: int, lepe: bool = True) -> None:
        super().__init__()
        if heads % axes or dim % heads:
            raise ValueError(
                f"heads must be a multiple of the {axes} axes and divide the width, got "
                f"heads={heads} and width {dim}"
            )
        self.axes, self.heads, self.stripe = axes, heads, stripe
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        part = dim // axes
        self.lepe = nn.ModuleList(
            CONV[axes](part, part, 3, padding=1, groups=part) for _ in range(axes if lepe else 0)
        )

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[1:-1]
        qkv = self.qkv(x).unflatten(-1, (3, self.axes, -1))
        parts = []
        for axis, own in enumerate(qkv.unbind(-2)):  # [B, *grid, 3, d]
            window = self.window(grid, axis)
            bars = _bars(own.flatten(-2), window).unflatten(-1, (3, -1))  # [R, *window, 3, d]
            each = bars.flatten(1, -3).unflatten(-1, (self.heads // self.axes, -1))
            q, k, v = each.permute(2, 0, 3, 1, 4)  # [R, heads, places, d / heads]
            out = attention(q, k, v)
            values = bars[..., 2, :]
            out = out.transpose(1, 2).reshape(values.shape)
            if len(self.lepe):
                out = out + self._beside(values, axis)
            parts.append(_whole(out, window, grid))
        return self.proj(torch.cat(parts, dim=-1))  # type: ignore[no-any-return]

    def _beside(self, values: Tensor, axis: int) -> Tensor:
        """LePE of bars `[R, *window, d]`.

        Along axes where a bar is one place wide the kernel meets nothing but padding, so that only
        its middle counts: a convolution over the others alone gives the same for a fraction.
        """
        conv = self.lepe[axis]
        sides = values.shape[1:-1]
        wide = [a for a, side in enumerate(sides) if side > 1] or [0]
        kernel = conv.weight[(..., *(slice(None) if a in wide else 1 for a in range(self.axes)))]
        x = values.reshape(len(values), *(sides[a] for a in wide), -1).movedim(-1, 1)
        bias: Tensor = conv.bias  # type: ignore[assignment]
        out = _CONVOLVE[len(wide)](x, kernel, bias, padding=1, groups=x.shape[1])
        return out.movedim(1, -1).reshape(values.shape)

    def window(self, grid: Sequence[int], axis: int) -> tuple[int, ...]:
        """Sides of the bars along `axis`."""
        return tuple(
            side if a == axis or not self.stripe else _fitting(side, self.stripe)
            for a, side in enumerate(grid)
        )


def _fitting(side: int, width: int) -> int:
    """The largest divisor of `side` up to `width`."""
    return next(w for w in range(min(side, width), 0, -1) if side % w == 0)


def _bars(x: Tensor, window: Sequence[int]) -> Tensor:
    """`[B, *grid, d]` cut into windows: `[B * count, *window, d]`."""
    axes = len(window)
    counts = [side // w for side, w in zip(x.shape[1:-1], window, strict=True)]
    shape = [n for pair in zip(counts, window, strict=True) for n in pair]
    order = [0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1]
    cut = x.reshape(x.shape[0], *shape, x.shape[-1]).permute(order)
    return cut.reshape(-1, *window, x.shape[-1])


def _whole(x: Tensor, window: Sequence[int], grid: Sequence[int]) -> Tensor:
    """The inverse of `_bars`."""
    axes = len(window)
    counts = [side // w for side, w in zip(grid, window, strict=True)]
    split = x.reshape(-1, *counts, *window, x.shape[-1])
    order = [0, *(n for a in range(axes) for n in (1 + a, 1 + axes + a)), 2 * axes + 1]
    return split.permute(order).reshape(-1, *grid, x.shape[-1])


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on `[B, *grid, D]`."""

    def __init__(
        self, dim: int, heads: int, *, axes: int, stripe: int, mlp_ratio: float, drop_path: float,
        stream: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = StripeAttention(dim, heads, axes=axes, stripe=stripe)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path1 = DropPath(drop_path, stream=f"{stream}.attn path")
        self.drop_path2 = DropPath(drop_path, stream=f"{stream}.mlp path")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class CSwin(nn.Module):
    """Overlapping patches, then stages of blocks, every stage but the first at half the resolution.

    `[B, C, *sides]` to pooled `[B, D]` and tokens `[B, N, D]`. `levels` are the widths of the maps
    `stages` returns, `strides` how much coarser than the input they are.
    """

    def __init__(
        self,
        *,
        channels: int,
        axes: int,
        dim: int,
        depths: Sequence[int],
        heads: Sequence[int],
        stripes: Sequence[int],
        stem_stride: int,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        if not len(depths) == len(heads) == len(stripes):
            raise ValueError(
                f"depths, heads and stripes must have one entry a stage, got {depths!r}, "
                f"{heads!r} and {stripes!r}"
            )
        self.axes = axes
        self.levels = tuple(dim * 2**stage for stage in range(len(depths)))
        self.strides = tuple(stem_stride * 2**stage for stage in range(len(depths)))
        self.embed_dim = self.levels[-1]
        self.layers = nn.ModuleList()
        total, done, inputs = max(1, sum(depths) - 1), 0, channels
        for stage, width in enumerate(self.levels):
            stride = 2 if stage else stem_stride
            conv = CONV[axes](inputs, width, 2 * stride - 1, stride, padding=stride - 1)
            blocks = []
            for _ in range(depths[stage]):
                block = Block(
                    width, heads[stage], axes=axes, stripe=stripes[stage], mlp_ratio=mlp_ratio,
                    drop_path=drop_path * done / total, stream=f"cswin.{done}",
                )  # fmt: skip
                blocks.append(block)
                done += 1
            parts = {"conv": conv, "norm": nn.LayerNorm(width), "blocks": nn.Sequential(*blocks)}
            self.layers.append(nn.ModuleDict(parts))
            inputs = width
        self.norm = nn.LayerNorm(self.embed_dim)

    def stages(self, data: Tensor) -> list[Tensor]:
        """The map after each stage, finest first."""
        sides, stride = tuple(data.shape[2:]), self.strides[-1]
        if any(side % stride for side in sides):
            raise UserError(f"encoder cswin: views of {sides} must be multiples of {stride} a side")
        x, maps = data, []
        for layer in self.layers:
            x = layer["conv"](x).movedim(1, -1)  # type: ignore[index]
            x = layer["blocks"](layer["norm"](x)).movedim(-1, 1)  # type: ignore[index]
            maps.append(x)
        maps[-1] = self.norm(maps[-1].movedim(1, -1)).movedim(-1, 1)
        return maps

    def forward(self, data: Tensor) -> Features:
        return pooled(self.stages(data)[-1])


def fitted(heads: Sequence[int], axes: int) -> list[int]:
    """Numbers of heads, rounded up to multiples of the axes."""
    return [axes * math.ceil(h / axes) for h in heads]


def cswin(
    spec: Mapping[str, Any],
    *,
    dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    stripes: Sequence[int],
    stem_stride: int = 4,
    mlp_ratio: float = 4.0,
    drop_path: float = 0.0,
    axes: int | None = None,
) -> CSwin:
    """A transformer of cross-shaped windows; `axes` 2 for slices (None: what views have).

    Where heads are no multiple of the axes they are rounded up, and `dim` with them.
    """
    axes = int(spec["axes"]) if axes is None else axes
    heads = fitted(heads, axes)
    most = math.lcm(*(h // math.gcd(h, 2**stage) for stage, h in enumerate(heads)))
    return CSwin(
        channels=int(spec["channels"]),
        axes=axes,
        dim=most * math.ceil(dim / most),
        depths=depths,
        heads=heads,
        stripes=stripes,
        stem_stride=stem_stride,
        mlp_ratio=mlp_ratio,
        drop_path=drop_path,
    )


def nano(
    spec: Mapping[str, Any],
    *,
    dim: int = 24,
    depths: Sequence[int] = (1, 1, 2),
    heads: Sequence[int] = (3, 6, 12),
    stripes: Sequence[int] = (1, 2, 0),
    stem_stride: int = 2,
    axes: int | None = None,
) -> CSwin:
    """About 0.3 M parameters with the defaults, for a CPU."""
    return cswin(
        spec, dim=dim, depths=depths, heads=heads, stripes=stripes, stem_stride=stem_stride,
        axes=axes,
    )  # fmt: skip


def tiny(
    spec: Mapping[str, Any],
    *,
    dim: int = 64,
    depths: Sequence[int] = (1, 2, 21, 1),
    heads: Sequence[int] = (2, 4, 8, 16),
    stripes: Sequence[int] = (1, 2, 7, 0),
    mlp_ratio: float = 4.0,
    drop_path: float = 0.2,
    axes: int | None = None,
) -> CSwin:
    """CSWin-T of the paper on two axes; on three the widths grow to fit their heads."""
    return cswin(
        spec, dim=dim, depths=depths, heads=heads, stripes=stripes, mlp_ratio=mlp_ratio,
        drop_path=drop_path, axes=axes,
    )  # fmt: skip
