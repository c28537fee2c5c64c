"""Gaussian blur with its own width per sample, separable and only where drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.ops.geometry import check_probability
from ssl_core.ops.rows import runs
from ssl_core.rng import Rng


@dataclass(frozen=True)
class GaussianBlur:
    """Blur with probability `p`, `sigma` uniform in pixels (SimCLR App. A; Chen et al. 2020).

    Equal to torchvision's `gaussian_blur` with reflected borders and odd `kernel`; weights beyond
    4 sigma (a share below 1e-4 of the mass) are left out. `kernel` None takes all 4 sigma.
    """

    p: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    kernel: int | None = None

    STREAMS: ClassVar[Mapping[str, int]] = {"blur": 1, "blur sigma": 1}

    def __post_init__(self) -> None:
        check_probability("blur", self.p)
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"blur sigma must be an increasing positive pair, got {self.sigma}")
        if self.kernel is not None and (self.kernel < 1 or self.kernel % 2 == 0):
            raise ValueError(f"blur kernel must be odd and positive, got {self.kernel}")

    def sample(self, rng: Rng) -> Tensor:
        """Sigma where the blur is drawn, 0 elsewhere: float32 `[B]`."""
        if not self.p:
            return torch.zeros(len(rng), device=rng.device)
        drawn = rng.bernoulli("blur", p=self.p)
        return drawn * rng.uniform("blur sigma", low=self.sigma[0], high=self.sigma[1])

    def apply(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`[B, C, H, W]` in place, row b with `sigma[b]` pixels (0: untouched)."""
        if x.device.type != "cpu":
            return self._batched(x, sigma)
        for width, rows in runs(sigma.tolist()):
            if width > 0:
                planes = x[rows].flatten(0, 1)
                weights = gaussian(width, self._radius(width, min(planes.shape[1:])))
                blurred = _along(_along(planes, weights, axis=1), weights, axis=2)
                x[rows].copy_(blurred.view_as(x[rows]))
        return x

    def most(self, side: int) -> int:
        """The widest radius on images whose shorter side is `side`: reflection allows no more."""
        return side - 1 if self.kernel is None else min(self.kernel // 2, side - 1)

    def _radius(self, sigma: float, side: int) -> int:
        return min(self.most(side), math.ceil(4 * sigma))

    def _batched(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The same for all rows in two grouped convolutions, without asking the device."""
        count, channels, height, width = x.shape
        radius = self._radius(self.sigma[1], min(height, width))
        offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        weights = torch.exp(-0.5 * (offset / sigma.clamp(min=1e-6)[:, None]) ** 2)
        weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, dim=0)
        flat = x.reshape(1, count * channels, height, width)
        padded = F.pad(flat, [radius] * 4, mode="reflect")
        rows = F.conv2d(padded, weights[:, None, :, None], groups=count * channels)
        both = F.conv2d(rows, weights[:, None, None, :], groups=count * channels)
        return x.copy_(torch.where(sigma[:, None, None, None] > 0, both.view_as(x), x))


def gaussian(sigma: float, radius: int) -> list[float]:
    """Normalised weights of offsets 0..radius; each but the first is used on both sides."""
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(radius + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    return [weight / total for weight in weights]


def _along(image: Tensor, weights: list[float], *, axis: int) -> Tensor:
    """Symmetric filter of planes `[P, H, W]` along one axis: one shifted pair-sum per weight."""
    radius, length = len(weights) - 1, image.shape[axis]
    pad = [0, 0, radius, radius] if axis == 1 else [radius, radius, 0, 0]
    wide = F.pad(image[None], pad, mode="reflect")[0] if radius else image
    out = image * weights[0]
    pair = torch.empty_like(out)  # reused: it stays in the cache
    for k in range(1, radius + 1):
        before, after = (wide.narrow(axis, radius + step, length) for step in (-k, k))
        out.add_(torch.add(before, after, out=pair), alpha=weights[k])
    return out
