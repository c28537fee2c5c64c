"""Common corruptions at five severities, to see what a representation bears.

Ten of those of Hendrycks & Dietterich (ICLR 2019), with their severities for ImageNet from 96
pixels and for CIFAR below. Functions take float images in 0..1 `[B, C, H, W]` and give new ones;
noise and directions are keyed per sample. Images that are not RGB have no saturation to change.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy

SEVERITIES = (1, 2, 3, 4, 5)
_LARGE = 96
_TABLES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    # name: (ImageNet's five, CIFAR's five)
    "gaussian_noise": ((0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": ((60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),
    "impulse_noise": ((0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": (
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ),
    "motion_blur": (
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ),
    "brightness": ((0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": ((0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),
    "saturate": (
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    ),
    "pixelate": ((0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg": ((25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
}
CORRUPTIONS = tuple(_TABLES)


def corrupt(x: Tensor, name: str, severity: int, rng: Rng) -> Tensor:
    """Images `[B, C, H, W]` in 0..1 under a corruption of `CORRUPTIONS` at severity 1 to 5."""
    if name not in _TABLES:
        raise ValueError(f"corruption {name!r}; choose one of {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be 1 to 5, got {severity}")
    row = _TABLES[name][0 if min(x.shape[2:]) >= _LARGE else 1]
    changed: Tensor = _FUNCTIONS[name](x, row[severity - 1], rng.fold("corruption", name))
    return changed.clamp(0, 1)


def _gaussian_noise(x: Tensor, sigma: float, rng: Rng) -> Tensor:
    return x + sigma * _per_pixel(rng.normal("noise", x[0].numel()), x)


def _shot_noise(x: Tensor, photons: float, rng: Rng) -> Tensor:
    """Poisson counts of `photons` x; above 25 expected photons by their normal limit."""
    expected = x * photons
    normal = expected + expected.sqrt() * _per_pixel(rng.normal("normal", x[0].numel()), x)
    chance = _per_pixel(rng.uniform("count", x[0].numel()), x).double()
    mean = expected.double()
    term = (-mean).exp()
    total, count = term.clone(), torch.zeros_like(mean)
    for k in range(1, 64):  # inversion: the number of terms of the distribution below `chance`
        count += total < chance
        term = term * mean / k
        total += term
    return torch.where(expected > 25, normal.round().clamp(min=0), count.to(x.dtype)) / photons


def _impulse_noise(x: Tensor, share: float, rng: Rng) -> Tensor:
    """A share of the values becomes black or white."""
    chance = _per_pixel(rng.uniform("hit", x[0].numel()), x)
    return torch.where(chance < share / 2, 0.0, torch.where(chance < share, 1.0, x))


def _per_pixel(drawn: Tensor, x: Tensor) -> Tensor:
    return drawn.view_as(x).to(x.dtype)


def _defocus_blur(x: Tensor, setting: tuple[float, float], rng: Rng) -> Tensor:
    """A disk of the given radius, its edge softened."""
    radius, softness = setting
    reach = max(3, math.ceil(radius) + 1)
    axis = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    disk = (axis[:, None] ** 2 + axis[None] ** 2 <= radius**2).to(x.dtype)
    soft = torch.exp(-0.5 * (axis / softness) ** 2)
    soft = soft / soft.sum()
    kernel = F.conv2d(disk[None, None], soft[None, None, :, None], padding=(reach, 0))
    kernel = F.conv2d(kernel, soft[None, None, None, :], padding=(0, reach))[0, 0]
    return _filtered(x, (kernel / kernel.sum()).expand(len(x), -1, -1))


def _motion_blur(x: Tensor, setting: tuple[float, float], rng: Rng) -> Tensor:
    """A one-sided Gaussian streak at -45 to 45 degrees, its own for every sample."""
    length, sigma = setting
    angle = rng.uniform("angle", low=-math.pi / 4, high=math.pi / 4).to(x.dtype)  # [B]
    reach = int(length)
    axis = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along = axis[None, None] * cos + axis[:, None] * sin  # [B, k, k]
    across = axis[:, None] * cos - axis[None, None] * sin
    weight = torch.exp(-0.5 * (along / sigma) ** 2) * (1 - across.abs()).clamp(min=0)
    kernel = torch.where((along >= -0.5) & (along <= length), weight, 0.0)
    return _filtered(x, kernel / kernel.sum((1, 2), keepdim=True))


def _filtered(x: Tensor, kernels: Tensor) -> Tensor:
    """Every sample by its own kernel `[B, k, k]`, edges repeated."""
    count, channels, height, width = x.shape
    reach = kernels.shape[-1] // 2
    wide = F.pad(x, [reach] * 4, mode="replicate")
    wide = wide.reshape(1, count * channels, height + 2 * reach, width + 2 * reach)
    weight = kernels.repeat_interleave(channels, dim=0).unsqueeze(1)
    return F.conv2d(wide, weight, groups=count * channels).view_as(x)


def _brightness(x: Tensor, added: float, rng: Rng) -> Tensor:
    """Adds to the value of HSV; hue and saturation stay."""
    value = x.amax(1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    return torch.where(value > 0, x * brighter / value.clamp(min=1e-6), brighter)


def _contrast(x: Tensor, factor: float, rng: Rng) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def _saturate(x: Tensor, setting: tuple[float, float], rng: Rng) -> Tensor:
    """Saturation of HSV times and plus; grey pixels have no hue to saturate and stay grey."""
    if x.shape[1] != 3:
        return x.clone()
    factor, added = setting
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    saturation = (value - low) / value.clamp(min=1e-6)
    wanted = (saturation * factor + added).clamp(0, 1)
    ratio = torch.where(saturation > 1e-6, wanted / saturation.clamp(min=1e-6), 1.0)
    return value - (value - x) * ratio


def _pixelate(x: Tensor, share: float, rng: Rng) -> Tensor:
    side = [max(1, int(length * share)) for length in x.shape[2:]]
    small = F.interpolate(x, size=side, mode="area")
    return F.interpolate(small, size=x.shape[2:], mode="nearest")


def _jpeg(x: Tensor, quality: int, rng: Rng) -> Tensor:
    """Written as JPEG and read again; images of other than one or three channels band by band."""
    if x.shape[1] not in (1, 3):
        bands = [_jpeg(band, quality, rng) for band in x.split(1, dim=1)]
        return torch.cat(bands, dim=1)
    stored = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    again = np.stack([_through_jpeg(image, quality) for image in stored])
    return torch.from_numpy(again).permute(0, 3, 1, 2).to(x) / 255


def _through_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(
        stream, "JPEG", quality=quality
    )
    read = np.asarray(Image.open(stream))
    return read[:, :, None] if read.ndim == 2 else read


_FUNCTIONS: dict[str, Callable[[Tensor, Any, Rng], Tensor]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "motion_blur": _motion_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "saturate": _saturate,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}


@dataclass(frozen=True)
class CorruptedViews:
    """A view policy whose plain view is corrupted before it is normalised."""

    views: ViewPolicy
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str
    severity: int
    seed: int = 0

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        return self.views(batch, rng)

    def plain(self, batch: Batch) -> Tensor:
        """float32 `[B, C, H, W]`, corrupted and normalised; the same for the same sample."""
        x: Tensor = self.views.plain(batch)
        shape = (1, -1, 1, 1)
        mean, std = x.new_tensor(self.mean).view(shape), x.new_tensor(self.std).view(shape)
        pixels = (x * std + mean).clamp(0, 1)
        rng = Rng.at(self.seed, self.severity, batch.ids)
        return (corrupt(pixels, self.name, self.severity, rng) - mean) / std
