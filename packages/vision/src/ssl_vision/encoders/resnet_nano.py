"""A residual network small enough to pretrain on a CPU in minutes.

The basic blocks of He et al. 2016 in three stages, for images of 28 to 96 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_vision.encoders.spec import channels_of


def _conv_bn(
    inputs: int, outputs: int, *, size: int, stride: int, scale: float = 1.0
) -> nn.Sequential:
    """Convolution and batch norm whose weights start at `scale`."""
    norm = nn.BatchNorm2d(outputs)
    nn.init.constant_(norm.weight, scale)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False), norm
    )


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))); the last norm starts at zero."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv_bn(inputs, outputs, size=3, stride=stride)
        self.conv2 = _conv_bn(outputs, outputs, size=3, stride=1, scale=0.0)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else _conv_bn(inputs, outputs, size=1, stride=stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv2(F.relu(self.conv1(x), inplace=True)))


class ResNetNano(nn.Module):
    """Stem, then stages of basic blocks; every stage but the first halves the map.

    `[B, C, H, W]` to pooled `[B, widths[-1]]` and tokens `[B, h w, widths[-1]]`.
    """

    def __init__(
        self, *, channels: int, widths: Sequence[int], blocks: int, stem_stride: int
    ) -> None:
        super().__init__()
        self.embed_dim = widths[-1]
        self.stem = _conv_bn(channels, widths[0], size=3, stride=stem_stride)
        layers: list[nn.Module] = []
        inputs = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(BasicBlock(inputs, width, 2 if stage and not block else 1))
                inputs = width
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, data: Tensor) -> Features:
        x = self.layers(F.relu(self.stem(data), inplace=True))
        tokens = x.flatten(2).transpose(1, 2)  # [B, h w, D]
        return Features(x.mean((2, 3)), tokens, tuple(x.shape[2:]))


def resnet_nano(
    spec: Mapping[str, Any],
    *,
    widths: Sequence[int] = (32, 64, 128),
    blocks: int = 1,
    stem_stride: int = 2,
) -> ResNetNano:
    """About 0.3 M parameters and, at 32 x 32 pixels, 12 M multiplications with the defaults."""
    return ResNetNano(
        channels=channels_of(spec), widths=widths, blocks=blocks, stem_stride=stem_stride
    )
