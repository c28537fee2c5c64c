"""Feature maps at several resolutions, and a decoder that climbs them (SparK)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ssl_core.errors import UserError
from ssl_core.networks.sparse import sparse_batch_norm, sparse_pass

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_UP = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@torch.no_grad()
def map_widths(encoder: nn.Module, *, side: int = 64) -> tuple[int, int, dict[int, int]]:
    """(input channels, axes, {stride: channels}) of a convolutional encoder, coarsest map first.

    Found by one forward of zeros, `side` along each axis; strides are powers of two.
    """
    first = next((m for m in encoder.modules() if isinstance(m, _ConvNd)), None)
    if first is None:
        raise UserError(
            f"encoder: {type(encoder).__name__} has no convolutions; choose a convolutional network"
        )
    axes = len(first.kernel_size)
    training = encoder.training
    with sparse_pass(encoder.eval(), None) as maps:
        encoder(torch.zeros(1, first.in_channels, *[side] * axes, device=first.weight.device))
    encoder.train(training)
    strides = [2**power for power in range(round(math.log2(side)) - 1, 0, -1)]
    found = {s: maps[key].shape[1] for s in strides if (key := (side // s,) * axes) in maps}
    if not found:
        raise UserError(f"encoder: {type(encoder).__name__} has no maps at strides of 2, 4, 8...")
    return first.in_channels, axes, found


class Densify(nn.Module):
    """A sparse map made whole: norm over visible places, a learned vector elsewhere, projection."""

    def __init__(self, in_dim: int, dim: int, *, kernel: int, axes: int) -> None:
        super().__init__()
        self.norm = _NORM[axes](in_dim)
        self.mask_token = nn.Parameter(torch.empty(1, in_dim, *[1] * axes).normal_(std=0.02))
        self.proj = _CONV[axes](in_dim, dim, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        x = sparse_batch_norm(self.norm, x, visible)
        out: Tensor = self.proj(torch.where(visible, x, self.mask_token.to(x.dtype)))
        return out


class UpBlock(nn.Module):
    """Twice the resolution by a transposed convolution, then two convolutions with batch norm."""

    def __init__(self, in_dim: int, dim: int, *, axes: int) -> None:
        super().__init__()
        conv, norm = _CONV[axes], _NORM[axes]
        self.up_sample = _UP[axes](in_dim, in_dim, 4, stride=2, padding=1)
        self.conv = nn.Sequential(
            conv(in_dim, in_dim, 3, padding=1, bias=False),
            norm(in_dim),
            nn.ReLU6(),
            conv(in_dim, dim, 3, padding=1, bias=False),
            norm(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.up_sample(x))
        return out


class PyramidDecoder(nn.Module):
    """SparK's light decoder: sparse maps, coarsest first, to content at full resolution.

    `widths` are the channels of the encoder's maps by stride. The decoder is `dim` wide at the
    coarsest map and half as wide at each doubling; each map joins, made dense, at its resolution.
    """

    def __init__(self, widths: dict[int, int], out_dim: int, *, dim: int, axes: int) -> None:
        super().__init__()
        coarsest = max(widths)
        steps = round(math.log2(coarsest))
        if dim % 2**steps:
            raise ValueError(
                f"decoder width {dim} must be a multiple of the encoder's stride {coarsest}"
            )
        self.strides = tuple(sorted(widths, reverse=True))
        self.densify = nn.ModuleList(
            Densify(
                widths[stride],
                dim * stride // coarsest,
                kernel=1 if stride == coarsest else 3,
                axes=axes,
            )
            for stride in self.strides
        )
        self.blocks = nn.ModuleList(
            UpBlock(dim // 2**step, dim // 2 ** (step + 1), axes=axes) for step in range(steps)
        )
        self.out = _CONV[axes](dim // 2**steps, out_dim, 1)

    def forward(self, maps: Sequence[Tensor], visible: Sequence[Tensor]) -> Tensor:
        """`maps` and where they are `visible` (bool `[B, 1, *sides]`), in the order of strides."""
        ready = {
            stride: densify(x, mask)
            for stride, densify, x, mask in zip(
                self.strides, self.densify, maps, visible, strict=True
            )
        }
        stride = self.strides[0]
        x = ready[stride]
        for block in self.blocks:
            x, stride = block(x), stride // 2
            if stride in ready:
                x = x + ready[stride]
        return self.out(x)  # type: ignore[no-any-return]
