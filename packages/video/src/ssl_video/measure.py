"""Facts of a data set's videos: length, rate, sizes, mean and std."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

LONGEST = 64
"""Frames stored of a video where nothing else is said."""
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Measured:
    """One video: how many frames it has, frames a second, and some of them `[n, H, W, 3]`."""

    length: int
    fps: float
    frames: Tensor


def measure(
    videos: Sequence[Measured],
    *,
    count: int | None = None,
    stride: int = 1,
    size: int | None = None,
    normalize: Literal["measured", "imagenet"] = "measured",
) -> dict[str, Any]:
    """The spec (see `VideoReader`) of a sample of videos.

    `count` None takes as many frames as the longest video has, at most 64. The reader draws
    windows when some video is longer than one.
    """
    lengths = [video.length for video in videos]
    if count is None:
        count = min(LONGEST, -(-max(lengths) // stride))
    heights, widths = ([video.frames.shape[axis] for video in videos] for axis in (1, 2))
    side = min(int(np.median(heights)), int(np.median(widths)))
    mean, std = _moments([video.frames for video in videos])
    spec = {
        "channels": 3,
        "window": count,
        "stride": stride,
        "draws": max(lengths) > (count - 1) * stride + 1,
        "frames": {"shortest": min(lengths), "longest": max(lengths)},
        "fps": round(float(np.median([video.fps for video in videos])), 3),
        "size": size or view_size(side),
        "height": int(np.median(heights)),
        "width": int(np.median(widths)),
        "range": [0.0, 255.0],
        "mean": [round(v, 6) for v in mean.tolist()],
        "std": [round(v, 6) for v in std.tolist()],
    }
    return spec | (_IMAGENET if normalize == "imagenet" else {})


def _moments(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel on the 0..1 scale; every video counts the same."""
    means, squares = [], []
    for pixels in frames:
        value = pixels.reshape(-1, 3).to(torch.float64) / 255
        means.append(value.mean(0))
        squares.append(value.square().mean(0))
    mean, square = torch.stack(means).mean(0), torch.stack(squares).mean(0)
    return mean, (square - mean**2).clamp(min=1e-6).sqrt()


def view_size(side: int) -> int:
    """The default view: 224 from 224 up, 112 from 112 up (the field's sizes), else the side."""
    return 224 if side >= 224 else 112 if side >= 112 else max(16, side - side % 8)
