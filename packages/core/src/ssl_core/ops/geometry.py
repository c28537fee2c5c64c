"""Where a view looks: random resized crop and mirror image, drawn for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ssl_core.rng import Rng

_TRIES = 10


def check_probability(what: str, p: float) -> None:
    """Raises `ValueError` unless `p` lies in [0, 1]."""
    if not 0 <= p <= 1:
        raise ValueError(f"{what} probability must lie between 0 and 1, got {p}")


@dataclass(frozen=True)
class RandomResizedCrop:
    """Boxes with a uniform share of the area and a log-uniform aspect (Szegedy et al. 2014).

    The distribution is torchvision's: ten tries, then the largest centre box whose aspect ratio
    is allowed. `scale` is the range of area shares, `ratio` that of width / height.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    STREAMS: ClassVar[Mapping[str, int]] = {
        "crop area": _TRIES,
        "crop aspect": _TRIES,
        "crop corner": 2,
    }
    """Numbers a sample that are drawn, by stream: `Rng.ahead` takes them together."""

    def __post_init__(self) -> None:
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high or (name == "scale" and high > 1):
                raise ValueError(
                    f"crop {name} must be an increasing positive pair, got {low, high}"
                )

    def sample(self, rng: Rng, sizes: Tensor) -> Tensor:
        """Top, left, height, width: int64 `[B, 4]`, for images of `sizes` (`[B, 2]`)."""
        full = sizes.to(torch.float64)
        area = full.prod(1, keepdim=True) * rng.uniform(
            "crop area", _TRIES, low=self.scale[0], high=self.scale[1], dtype=torch.float64
        )
        low, high = (math.log(edge) for edge in self.ratio)
        aspect = rng.uniform("crop aspect", _TRIES, low=low, high=high, dtype=torch.float64).exp()
        width = (area * aspect).sqrt().round()  # [B, tries]
        height = (area / aspect).sqrt().round()
        fits = (width > 0) & (height > 0) & (width <= full[:, 1:]) & (height <= full[:, :1])
        first = fits.to(torch.int8).argmax(dim=1, keepdim=True)
        box = torch.cat([height.gather(1, first), width.gather(1, first)], dim=1).to(torch.int64)
        free = sizes - box + 1
        corner = rng.integers("crop corner", 2, high=free.clamp(min=1))
        drawn = torch.cat([corner, box], dim=1)
        return torch.where(fits.any(1, keepdim=True), drawn, self._centre(sizes))

    def _centre(self, sizes: Tensor) -> Tensor:
        height, width = sizes.to(torch.float64).unbind(1)
        aspect = (width / height).clamp(min=self.ratio[0], max=self.ratio[1])
        h = torch.minimum(height, (width / aspect).round())
        w = torch.minimum(width, (height * aspect).round())
        box = torch.stack([h, w], dim=1).to(torch.int64)
        return torch.cat([torch.div(sizes - box, 2, rounding_mode="floor"), box], dim=1)


@dataclass(frozen=True)
class HorizontalFlip:
    """Left-right mirror image with probability `p`."""

    p: float = 0.5

    STREAMS: ClassVar[Mapping[str, int]] = {"flip": 1}

    def __post_init__(self) -> None:
        check_probability("flip", self.p)

    def sample(self, rng: Rng) -> Tensor:
        """bool `[B]`."""
        return rng.bernoulli("flip", p=self.p)

    def apply(self, x: Tensor, flip: Tensor) -> Tensor:
        """`[B, C, H, W]`, mirrored where `flip`."""
        return torch.where(flip[:, None, None, None], x.flip(-1), x)
