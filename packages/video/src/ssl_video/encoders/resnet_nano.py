"""A residual network over space and time, small enough to pretrain on a CPU in minutes.

Basic blocks (He et al. 2016) whose 3 x 3 x 3 convolutions are split into one over space and one
over time, as in R(2+1)D (Tran et al. 2018), without the extra width and norm between the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_video.encoders.places import by_place, checked_places
from ssl_video.encoders.spec import clip_shape
from ssl_video.views.temporal import difference


class Conv2Plus1(nn.Sequential):
    """A convolution over space, then one over time, then batch norm: `[B, C, T, H, W]`."""

    def __init__(
        self, inputs: int, outputs: int, *, stride: tuple[int, int] = (1, 1), scale: float = 1.0
    ) -> None:
        """`stride` in time and space; the norm's weights start at `scale`."""
        time, space = stride
        norm = nn.BatchNorm3d(outputs)
        nn.init.constant_(norm.weight, scale)
        super().__init__(
            nn.Conv3d(inputs, outputs, (1, 3, 3), (1, space, space), (0, 1, 1), bias=False),
            nn.Conv3d(outputs, outputs, (3, 1, 1), (time, 1, 1), (1, 0, 0), bias=False),
            norm,
        )


class Block(nn.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))); the last norm starts at zero."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = Conv2Plus1(inputs, outputs, stride=stride)
        self.conv2 = Conv2Plus1(outputs, outputs, scale=0.0)
        self.shortcut: nn.Module = nn.Identity()
        if stride != (1, 1) or inputs != outputs:
            step = (stride[0], stride[1], stride[1])
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, step, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv2(F.relu(self.conv1(x), inplace=True)))


class ResNet3dNano(nn.Module):
    """Stem, then stages of blocks; every stage but the first halves space, the last also time.

    `[B, C, T, H, W]` to pooled `[B, D]` and tokens `[B, t h w, widths[-1]]`; D is `widths[-1]`
    times the number of `places`. `levels` are the widths of the stages, whose maps `stages`
    returns (HDC contrasts several depths).
    """

    def __init__(
        self,
        *,
        channels: int,
        widths: Sequence[int],
        blocks: int,
        stem_stride: int,
        places: Sequence[int] = (1, 1, 1),
        residual_frames: bool = False,
    ) -> None:
        super().__init__()
        self.residual_frames = residual_frames
        self.places = checked_places(places)
        self.token_width = widths[-1]
        self.embed_dim = widths[-1] * math.prod(self.places)
        self.levels = tuple(widths)
        self.stem = Conv2Plus1(channels, widths[0], stride=(1, stem_stride))
        self.layers = nn.ModuleList()
        inputs = widths[0]
        for stage, width in enumerate(widths):
            last = stage == len(widths) - 1
            stride = (2 if last and stage else 1, 2 if stage else 1)
            parts = [
                Block(inputs if not b else width, width, stride if not b else (1, 1))
                for b in range(blocks)
            ]
            self.layers.append(nn.Sequential(*parts))
            inputs = width
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self, data: Tensor) -> list[Tensor]:
        """The map after each stage, `[B, width, t, h, w]`."""
        x = F.relu(self.stem(difference(data, int(self.residual_frames))), inplace=True)
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps

    def forward(self, data: Tensor) -> Features:
        x = self.stages(data)[-1]
        return Features(by_place(x, self.places), x.flatten(2).transpose(1, 2), tuple(x.shape[2:]))


def resnet3d_nano(
    spec: Mapping[str, Any],
    *,
    widths: Sequence[int] = (24, 48, 96),
    blocks: int = 1,
    stem_stride: int = 2,
    places: Sequence[int] = (1, 1, 1),
    residual_frames: bool = False,
) -> ResNet3dNano:
    """About 0.3 M parameters with the defaults.

    `places` is into how many parts of time, height and width the last map is divided before the
    means: (1, 1, 1) is one mean of all, (1, 3, 3) nine side by side, which know where in the
    picture things are. With `residual_frames` the network sees differences of neighbouring frames
    (Tao, Wang & Yamasaki 2020): what stands still is gone before the first layer.
    """
    if residual_frames and clip_shape(spec)[0] < 2:
        raise ValueError("residual_frames need clips of at least two frames; raise views.frames")
    return ResNet3dNano(
        channels=int(spec.get("channels", 3)),
        widths=widths,
        blocks=blocks,
        stem_stride=stem_stride,
        places=places,
        residual_frames=residual_frames,
    )
