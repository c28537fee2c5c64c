"""Facts of a data set's images: channels, sizes, value range, mean and std."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_core.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def measure(
    images: Sequence[Tensor],
    *,
    size: int | None = None,
    normalize: Literal["measured", "imagenet"] = "measured",
) -> dict[str, Any]:
    """The spec (see `ImageReader`) of decoded images `[C, H, W]`.

    Channels and type are those of most images, and only those images are measured; mean and std
    are over all their pixels. `size` None takes the default for the median shorter side.
    """
    channels, dtype = _majority([(x.shape[0], x.dtype) for x in images])
    same = [x for x in images if x.shape[0] == channels and x.dtype == dtype]
    low, high = _value_range(same, dtype)
    mean, std = _moments(same, low, high)
    heights, widths = ([x.shape[axis] for x in same] for axis in (1, 2))
    side = min(int(np.median(heights)), int(np.median(widths)))
    spec = {
        "channels": channels,
        "size": size or view_size(side),
        "height": int(np.median(heights)),
        "width": int(np.median(widths)),
        "dtype": str(dtype).removeprefix("torch."),
        "range": [low, high],
        "mean": [round(v, 6) for v in mean.tolist()],
        "std": [round(v, 6) for v in std.tolist()],
    }
    if normalize == "imagenet":
        if channels not in (1, 3):
            raise UserError(
                f"data.options.normalize: imagenet needs 1 or 3 channels, not {channels}"
            )
        grey = channels == 1
        spec["mean"] = [0.449] if grey else list(IMAGENET_MEAN)
        spec["std"] = [0.226] if grey else list(IMAGENET_STD)
    return spec


def _moments(images: Sequence[Tensor], low: float, high: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel over all pixels, on the 0..1 scale, float64 `[C]`.

    One image at a time: a sample of photographs in float64 would take gigabytes.
    """
    total = square = torch.zeros(images[0].shape[0], dtype=torch.float64)
    count = 0
    for image in images:
        value = (image.flatten(1).to(torch.float64) - low) / (high - low)
        total = total + value.sum(1)
        square = square + (value * value).sum(1)
        count += value.shape[1]
    mean = total / count
    return mean, (square / count - mean**2).clamp(min=1e-6).sqrt()


def _majority(kinds: Sequence[tuple[int, torch.dtype]]) -> tuple[int, torch.dtype]:
    """The commonest (channels, type); on a tie the one with more channels."""
    counts = Counter(kinds)
    return max(counts, key=lambda kind: (counts[kind], kind[0], str(kind[1])))


def _value_range(images: Sequence[Tensor], dtype: torch.dtype) -> tuple[float, float]:
    """The values that mean 0 and 1.

    Bytes span 0..255. In 16-bit files 10, 12 or 14 bits are often used, so the top is the
    smallest 2^k - 1 (k >= 8) that no measured value exceeds. Floats span what was measured.
    """
    if dtype == torch.uint8:
        return 0.0, 255.0
    high = max(float(x.to(torch.float32).max()) for x in images)
    if dtype == torch.uint16:
        return 0.0, float(2 ** max(8, math.ceil(math.log2(high + 1))) - 1)
    low = min(float(x.min()) for x in images)
    return low, high if high > low else low + 1.0


def view_size(side: int) -> int:
    """The default view for images of this shorter side: 224 from 160 up, else a multiple of 4."""
    return 224 if side >= 160 else max(16, side - side % 4)
