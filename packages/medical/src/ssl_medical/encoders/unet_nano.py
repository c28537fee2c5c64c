"""A small U-Net on two or three axes, and the decoder that turns any encoder's maps dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features, token_width
from ssl_core.errors import UserError
from ssl_medical.encoders.resnet_nano import ResNetNano, conv_norm, pooled

_LINEAR = {2: "bilinear", 3: "trilinear"}


class Climb(nn.Module):
    """From maps of several resolutions, finest first, to one dense map `[B, dim, *sides]`.

    Each step enlarges linearly, joins the next finer map and convolves (Ronneberger et al. 2015).
    """

    def __init__(self, levels: Sequence[int], dim: int, *, axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.steps = nn.ModuleList(
            conv_norm(coarse + fine, fine, axes=axes) for fine, coarse in pairwise(levels)
        )
        self.last = conv_norm(levels[0], dim, axes=axes)
        self.dim = dim

    def forward(self, maps: Sequence[Tensor], sides: Sequence[int]) -> Tensor:
        x = maps[-1]
        for step, fine in zip(reversed(self.steps), reversed(maps[:-1]), strict=True):
            x = F.relu(step(torch.cat([enlarged(x, fine.shape[2:]), fine], dim=1)))
        return F.relu(self.last(enlarged(x, sides)))


class Growth(nn.Module):
    """From the one coarse map of a transformer to a dense one `[B, dim, *sides]`.

    Twice the resolution and half the width a step, a convolution each, as in SETR (Zheng et al.,
    CVPR 2021). One step to the full resolution costs several times as much, since its convolution
    would see every voxel at the map's whole width.
    """

    def __init__(self, width: int, dim: int, *, stride: int, axes: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        self.axes, self.dim = axes, dim
        while stride > 3:
            self.steps.append(conv_norm(width, max(dim, width // 2), axes=axes))
            stride, width = stride // 2, max(dim, width // 2)
        self.last = conv_norm(width, dim, axes=axes)

    def forward(self, maps: Sequence[Tensor], sides: Sequence[int]) -> Tensor:
        (x,) = maps
        for step in self.steps:
            x = F.relu(step(enlarged(x, [2 * side for side in x.shape[2:]])))
        return F.relu(self.last(enlarged(x, sides)))


def enlarged(x: Tensor, sides: Sequence[int]) -> Tensor:
    """`[B, C, *grid]` interpolated linearly to `[B, C, *sides]`."""
    if tuple(x.shape[2:]) == tuple(sides):
        return x
    return F.interpolate(x, size=tuple(sides), mode=_LINEAR[x.dim() - 2], align_corners=False)


class UNetNano(nn.Module):
    """`ResNetNano` and `Climb`. Features are those of the coarsest map; `dense` is the finest."""

    def __init__(self, encoder: ResNetNano, *, dim: int) -> None:
        super().__init__()
        self.down = encoder
        self.up = Climb(encoder.levels, dim, axes=encoder.axes)
        self.embed_dim, self.axes, self.dense_dim = encoder.embed_dim, encoder.axes, dim

    def forward(self, data: Tensor) -> Features:
        return self.down(data)  # type: ignore[no-any-return]

    def dense(self, data: Tensor) -> tuple[Features, Tensor]:
        """Features, and a map `[B, dense_dim, *sides]` at the input's resolution, in one pass."""
        maps = self.down.stages(data)
        return pooled(maps[-1]), self.up(maps, data.shape[2:])


class DenseHead(nn.Module):
    """A dense map from any encoder: its own, or `Climb` over its `stages`, or `Growth` of tokens.

    The encoder is passed to `forward` and not kept: its parameters stay under its owner's names.
    """

    def __init__(self, encoder: nn.Module, *, dim: int) -> None:
        super().__init__()
        self.up: Climb | Growth | None = None
        self.dense_dim: int = dim
        if hasattr(encoder, "dense"):
            self.dense_dim = encoder.dense_dim  # type: ignore[assignment]
            return
        levels: Sequence[int] = getattr(encoder, "levels", (token_width(encoder),))
        if len(levels) > 1:
            self.up = Climb(levels, dim, axes=axes_of(encoder))
        else:
            self.up = Growth(levels[0], dim, stride=stride_of(encoder), axes=axes_of(encoder))

    def forward(self, encoder: nn.Module, data: Tensor) -> tuple[Features, Tensor]:
        """Features, and a map `[B, dense_dim, *sides]`."""
        if self.up is None:
            return encoder.dense(data)  # type: ignore[operator,no-any-return]
        if hasattr(encoder, "stages"):
            maps = encoder.stages(data)  # type: ignore[operator]
            return pooled(maps[-1]), self.up(maps, data.shape[2:])
        features: Features = encoder(data)
        if features.tokens is None or not features.grid:
            raise UserError("encoder: dense features need tokens on a grid; choose another encoder")
        coarse = features.tokens.transpose(1, 2).unflatten(2, features.grid)
        return features, self.up([coarse], data.shape[2:])


def axes_of(encoder: nn.Module) -> int:
    """2 or 3: the axes an encoder of ours, of MONAI's or of the core works on."""
    axes = getattr(encoder, "axes", None)
    return len(encoder.grid) if axes is None else int(axes)  # type: ignore[arg-type]


def stride_of(encoder: nn.Module) -> int:
    """How much coarser than its input an encoder's coarsest map is."""
    if hasattr(encoder, "strides"):
        return int(encoder.strides[-1])  # type: ignore[index]
    return max(encoder.patch_embed.patch)  # type: ignore[union-attr,arg-type]


def unet_nano(
    spec: Mapping[str, Any],
    *,
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    stem_stride: int = 1,
    dim: int = 16,
    axes: int | None = None,
) -> UNetNano:
    """About 0.3 M parameters with the defaults; `axes` 2 for slices (None: what views have)."""
    inner = ResNetNano(
        channels=int(spec["channels"]),
        axes=int(spec["axes"]) if axes is None else axes,
        widths=widths,
        blocks=blocks,
        stem_stride=stem_stride,
    )
    return UNetNano(inner, dim=dim)
