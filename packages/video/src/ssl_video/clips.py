"""Frames out of batches of clips: `[B, T, H, W, C]` tensors, or lists where sizes differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_core.ops.pixels import Ragged, resize


def frames_of(data: Tensor | Ragged, index: Tensor) -> Tensor | Ragged:
    """Frames `index` (int64 `[B, t]`) as images `[B t, C, H, W]`, clip after clip.

    On the CPU, and of lists of clips, a list of images, without a copy: most of a frame may lie
    outside the crop.
    """
    if isinstance(data, Tensor) and data.device.type != "cpu":
        rows = torch.arange(len(data), device=data.device)[:, None]
        return data[rows, index].flatten(0, 1).permute(0, 3, 1, 2)
    numbers: list[list[int]] = index.tolist()
    return [
        clip[number].permute(2, 0, 1)
        for clip, row in zip(data, numbers, strict=True)
        for number in row
    ]


def clip_sizes(data: Tensor | Ragged) -> Tensor:
    """Height and width of every clip, int64 `[B, 2]` on the clips' device."""
    if isinstance(data, Tensor):
        return torch.tensor(data.shape[2:4], device=data.device).expand(len(data), 2)
    return torch.tensor([clip.shape[1:3] for clip in data], device=data[0].device)


def length_of(data: Tensor | Ragged) -> int:
    """Frames of every clip, T."""
    return data.shape[1] if isinstance(data, Tensor) else data[0].shape[0]


def evenly(data: Tensor | Ragged, count: int) -> Tensor:
    """`count` frame numbers spread over the clip, int64 `[B, count]`."""
    total, device = length_of(data), data[0].device
    numbers = torch.linspace(0, total - 1, count, device=device).round().to(torch.int64)
    return numbers.expand(len(data), count)


def square(images: Tensor | Ragged, side: int, spec: Mapping[str, Any], **options: Any) -> Tensor:
    """The centre square of each image at `side`, float32 `[N, C, side, side]` in 0..1."""
    return resize(images, side, spec, **options)


def clips_from(images: Tensor, frames: int) -> Tensor:
    """Images `[B t, C, H, W]` as clips `[B, C, t, H, W]`, the layout of 3-D convolutions."""
    return images.unflatten(0, (-1, frames)).transpose(1, 2).contiguous()
