"""A residual network on two or three axes, small enough to pretrain on a CPU in minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def conv_norm(
    inputs: int, outputs: int, *, axes: int, stride: int = 1, scale: float = 1.0
) -> nn.Sequential:
    """A convolution of 3 a side and batch norm, whose weights start at `scale`."""
    conv = CONV[axes](inputs, outputs, 3, stride, padding=1, bias=False)
    norm = NORM[axes](outputs)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    nn.init.constant_(norm.weight, scale)
    return nn.Sequential(conv, norm)


class Block(nn.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))) (He et al. 2016); the last norm starts at zero."""

    def __init__(self, inputs: int, outputs: int, *, axes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_norm(inputs, outputs, axes=axes, stride=stride)
        self.conv2 = conv_norm(outputs, outputs, axes=axes, scale=0.0)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                CONV[axes](inputs, outputs, 1, stride, bias=False), NORM[axes](outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv2(F.relu(self.conv1(x), inplace=True)))


class ResNetNano(nn.Module):
    """Stem, then stages of blocks, every stage but the first at half the resolution.

    `[B, C, *sides]` to pooled `[B, widths[-1]]` and tokens `[B, N, widths[-1]]`. `levels` are the
    widths of the maps `stages` returns, `strides` how much coarser than the input they are.
    """

    def __init__(
        self, *, channels: int, axes: int, widths: Sequence[int], blocks: int, stem_stride: int
    ) -> None:
        super().__init__()
        self.embed_dim = widths[-1]
        self.axes = axes
        self.levels = tuple(widths)
        self.strides = tuple(stem_stride * 2**stage for stage in range(len(widths)))
        self.stem = conv_norm(channels, widths[0], axes=axes, stride=stem_stride)
        self.layers = nn.ModuleList()
        inputs = widths[0]
        for stage, width in enumerate(widths):
            first = Block(inputs, width, axes=axes, stride=2 if stage else 1)
            rest = [Block(width, width, axes=axes, stride=1) for _ in range(blocks - 1)]
            self.layers.append(nn.Sequential(first, *rest))
            inputs = width

    def stages(self, data: Tensor) -> list[Tensor]:
        """The map after each stage, finest first."""
        x = F.relu(self.stem(data), inplace=True)
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps

    def forward(self, data: Tensor) -> Features:
        return pooled(self.stages(data)[-1])


def pooled(x: Tensor) -> Features:
    """A map `[B, D, *grid]` as features: its mean, and every place as a token."""
    return Features(x.flatten(2).mean(2), x.flatten(2).transpose(1, 2), tuple(x.shape[2:]))


def resnet_nano(
    spec: Mapping[str, Any],
    *,
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    stem_stride: int = 2,
    axes: int | None = None,
) -> ResNetNano:
    """About 0.2 M parameters with the defaults; `axes` 2 for slices (None: what views have)."""
    return ResNetNano(
        channels=int(spec["channels"]),
        axes=int(spec["axes"]) if axes is None else axes,
        widths=widths,
        blocks=blocks,
        stem_stride=stem_stride,
    )
