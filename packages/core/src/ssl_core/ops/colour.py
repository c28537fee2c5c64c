"""Colour operations on float images in 0..1, each sample with its own strength.

Equal to torchvision's v2 functionals on float images. Functions work in place on `[G, C, H, W]`
(contiguous planes) and take one factor a sample as `[G]`. Images that are not RGB have brightness
and contrast; saturation, hue and grey have no meaning there and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ssl_core.ops.geometry import check_probability
from ssl_core.ops.rows import change, change_drawn, runs, worth_gathering
from ssl_core.ops.sending import sent
from ssl_core.rng import Rng

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in their grey (ITU-R 601)."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_BASES = (64, 16, 4, 1)


def _per_sample(factor: Tensor) -> Tensor:
    return factor[:, None, None, None]


def luma(x: Tensor) -> Tensor:
    """ITU-R 601 grey of RGB, else the mean over channels: `[G, 1, H, W]`."""
    if x.shape[1] != 3:
        return x if x.shape[1] == 1 else x.mean(1, keepdim=True)
    grey = x[:, 0:1] * LUMA[0]
    return grey.add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:3], alpha=LUMA[2])


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """x f, cut to 0..1."""
    return x.mul_(_per_sample(factor)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """x f + m (1 - f) with m the mean grey of the image, cut to 0..1."""
    # Rows, then columns: each sum has a fixed length, so bits do not depend on the group.
    mean = luma(x).mean(3).mean(2)[:, 0]
    return x.mul_(_per_sample(factor)).add_(_per_sample(mean * (1 - factor))).clamp_(0, 1)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """x f + grey (1 - f), cut to 0..1."""
    grey = luma(x).mul_(_per_sample(1 - factor))
    return x.mul_(_per_sample(factor)).add_(grey).clamp_(0, 1)


def adjust_hue(x: Tensor, factor: Tensor) -> Tensor:
    """Rotates the hue by `factor` turns (-0.5..0.5), value and saturation kept.

    In hexcone coordinates each channel is min + chroma * w(h), with w a triangle wave of the hue
    cut to 0..1, so the way back from HSV needs no case distinction.
    """
    red, green, blue = x.unbind(1)  # views [G, H, W]
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    per_chroma = chroma.clamp(min=1e-20).reciprocal_()
    # Sixths of a turn, by which channel is largest; a lerp by a 0/1 mask is cheaper than `where`.
    hue = (red - green).mul_(per_chroma).add_(4)
    # The mask is written as float: converting a bool mask costs ten times the comparison.
    mask = torch.empty_like(hue)
    hue.lerp_((blue - red).mul_(per_chroma).add_(2), torch.eq(green, high, out=mask))
    hue.lerp_((green - blue).mul_(per_chroma), torch.eq(red, high, out=mask))
    hue.add_((6 * factor)[:, None, None])
    hue.sub_((hue * (1 / 6)).floor_().mul_(6))
    for channel, centre in ((red, 3.0), (green, 2.0), (blue, 4.0)):
        wave = (hue - centre).abs_()
        wave = wave.sub_(1) if centre == 3.0 else wave.neg_().add_(2)
        torch.addcmul(low, wave.clamp_(0, 1), chroma, out=channel)
    return x


_ADJUST = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


@dataclass(frozen=True)
class JitterParams:
    """Per sample: `applied` bool `[B]`; `factors` `[B, 4]` (brightness, contrast, saturation,
    hue shift in turns); `order` int64 `[B, 4]`, the operations in the order applied."""

    applied: Tensor
    factors: Tensor
    order: Tensor

    @classmethod
    def none(cls, rng: Rng) -> JitterParams:
        """No sample of `rng` is changed."""
        neutral = sent([1.0, 1.0, 1.0, 0.0], rng.device)
        return cls(
            applied=torch.zeros(len(rng), dtype=torch.bool, device=rng.device),
            factors=neutral.repeat(len(rng), 1),
            order=torch.arange(4, device=rng.device).repeat(len(rng), 1),
        )

    def codes(self) -> Tensor:
        """One integer per order, 0 where not applied: samples that share it can go together."""
        base = sent(_BASES, self.order.device)
        return ((self.order * base).sum(1) + 1) * self.applied


@dataclass(frozen=True)
class ColourJitter:
    """Four adjustments in random order, with probability `p` (Wu et al. 2018; SimCLR App. A).

    `brightness`, `contrast` and `saturation` draw factors from [max(0, 1 - v), 1 + v]; `hue`
    draws turns from [-v, v].
    """

    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    p: float = 0.8

    STREAMS: ClassVar[Mapping[str, int]] = {
        **{f"jitter {op}": 1 for op in range(4)},
        "jitter": 1,
        "jitter order": 4,
    }

    def __post_init__(self) -> None:
        check_probability("jitter", self.p)
        if min(self.brightness, self.contrast, self.saturation, self.hue) < 0 or self.hue > 0.5:
            raise ValueError(f"jitter strengths must be >= 0 and hue <= 0.5, got {self}")

    @property
    def spans(self) -> tuple[float, float, float, float]:
        """The strength of each operation, by its number."""
        return self.brightness, self.contrast, self.saturation, self.hue

    def sample(self, rng: Rng) -> JitterParams:
        """All choices for the samples of `rng`."""
        if not self.p:
            return JitterParams.none(rng)
        factors = [
            rng.uniform(f"jitter {i}", low=max(0.0, 1 - span), high=1 + span)
            for i, span in enumerate(self.spans[:HUE])
        ]
        factors.append(rng.uniform("jitter 3", low=-self.hue, high=self.hue))
        return JitterParams(
            applied=rng.bernoulli("jitter", p=self.p),
            factors=torch.stack(factors, dim=1),
            order=rng.permutation("jitter order", 4),
        )

    def apply(self, x: Tensor, codes: list[int], factors: Tensor) -> Tensor:
        """In place: `[B, C, H, W]`, each sample in its own order; `codes` of `JitterParams`.

        Stretches of equal codes go through all four steps each. Where small images have many
        orders, those with the same operation next go together, whatever follows: sixteen groups
        instead of up to 24 orders of four operations.
        """
        stretches = [(code, rows) for code, rows in runs(codes) if code]
        if not worth_gathering(x, len(stretches)):
            for code, rows in stretches:
                for op in self._steps(x, code):
                    _ADJUST[op](x[rows], factors[rows, op])
            return x
        orders = {code: self._steps(x, code) for code in set(codes)}
        for step in range(len(_ADJUST)):
            for op, adjust in enumerate(_ADJUST):
                now = [i for i, code in enumerate(codes) if orders[code][step : step + 1] == [op]]
                if now:
                    change(x, now, partial(adjust, factor=factors[now, op]))
        return x

    def _steps(self, x: Tensor, code: int) -> list[int]:
        """The operations behind a code in their order, without those that change nothing."""
        if not code:
            return []
        rgb = x.shape[1] == 3
        order = [(code - 1) // base % 4 for base in _BASES]
        return [op for op in order if self.spans[op] and (rgb or op in (BRIGHTNESS, CONTRAST))]


@dataclass(frozen=True)
class Grey:
    """All channels set to the luma with probability `p`; only for RGB."""

    p: float = 0.2

    STREAMS: ClassVar[Mapping[str, int]] = {"grey": 1}

    def __post_init__(self) -> None:
        check_probability("grey", self.p)

    def sample(self, rng: Rng) -> Tensor:
        """bool `[B]`."""
        return rng.bernoulli("grey", p=self.p)

    def apply(self, x: Tensor, grey: Tensor) -> Tensor:
        """In place: `[B, C, H, W]`, grey where `grey`."""
        if x.shape[1] != 3:
            return x
        if x.device.type != "cpu":
            return x.copy_(torch.where(_per_sample(grey), luma(x), x))
        change_drawn(x, grey.tolist(), luma)
        return x


@dataclass(frozen=True)
class Solarise:
    """Values from `threshold` up are inverted, with probability `p` (BYOL)."""

    p: float = 0.2
    threshold: float = 0.5

    STREAMS: ClassVar[Mapping[str, int]] = {"solarise": 1}

    def __post_init__(self) -> None:
        check_probability("solarise", self.p)

    def sample(self, rng: Rng) -> Tensor:
        """bool `[B]`."""
        return rng.bernoulli("solarise", p=self.p)

    def apply(self, x: Tensor, solarise: Tensor) -> Tensor:
        """In place: `[B, C, H, W]`, inverted where `solarise`."""
        if x.device.type != "cpu":
            inverted = _per_sample(solarise) & (x >= self.threshold)
            return x.copy_(torch.where(inverted, 1 - x, x))
        change_drawn(
            x, solarise.tolist(), lambda some: torch.where(some >= self.threshold, 1 - some, some)
        )
        return x


@dataclass(frozen=True)
class Normalise:
    """(x - mean) / std per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, x: Tensor) -> Tensor:
        """In place: `[B, C, H, W]`."""
        shape = (1, -1, 1, 1)
        mean, std = (sent(v, x.device, x.dtype).view(shape) for v in (self.mean, self.std))
        return x.sub_(mean).div_(std)
