"""Random changes of waves `[B, T]` in -1..1, each drawn from the sample's key.

Every operation has `sample(rng) -> params` and `apply(wave, params) -> wave`; with probability
1 - p a sample's parameters mean "unchanged".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_audio.resampling import stretch
from ssl_core.rng import Rng

_QUIET = 1e-8
"""Mean square below which a recording counts as silence (-80 dB)."""


@dataclass(frozen=True)
class Gain:
    """Louder or quieter by up to `decibels`."""

    decibels: float = 6.0
    p: float = 1.0

    def sample(self, rng: Rng) -> Tensor:
        """Factors `[B]`."""
        level = rng.uniform("gain", low=-self.decibels, high=self.decibels)
        return torch.where(rng.bernoulli("gain p", p=self.p), 10 ** (level / 20), 1.0)

    def apply(self, wave: Tensor, factor: Tensor) -> Tensor:
        return wave * factor[:, None]


@dataclass(frozen=True)
class NoiseParams:
    """Share of noise (`[B]`, amplitude relative to the wave; 0: none) and its samples."""

    amplitude: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Noise:
    """White noise `low` to `high` decibels below the recording (a signal-to-noise ratio)."""

    low: float = 5.0
    high: float = 30.0
    p: float = 0.5

    def sample(self, rng: Rng, count: int) -> NoiseParams:
        """For waves of `count` samples."""
        ratio = rng.uniform("noise ratio", low=self.low, high=self.high)
        used = rng.bernoulli("noise p", p=self.p)
        return NoiseParams(
            torch.where(used, 10 ** (-ratio / 20), 0.0), _standard_noise(rng, count, "noise")
        )

    def apply(self, wave: Tensor, params: NoiseParams) -> Tensor:
        power = wave.square().mean(1).clamp_(min=_QUIET)
        return wave + params.noise * (params.amplitude * power.sqrt())[:, None]


def _standard_noise(rng: Rng, count: int, stream: str) -> Tensor:
    """Mean 0, variance 1, `[B, count]`: the sum of four uniform numbers, from one draw of bits.

    Sixteen bits each are enough for noise that is only heard, at a quarter of the cost of exact
    normal numbers.
    """
    bits = rng.bits(stream, count)
    total = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48 & 0xFFFF)
    return (total.to(torch.float32) - 2 * 0xFFFF) * (3**0.5 / 0xFFFF)


@dataclass(frozen=True)
class Reverb:
    """A random room: convolution with noise that dies away by 60 dB in `low` to `high` seconds.

    The first tap stays 1, and the tail carries up to `wet` of the direct sound's energy. Parameters
    are the impulse responses `[B, taps]`.
    """

    rate: int
    low: float = 0.05
    high: float = 0.4
    wet: float = 0.7
    p: float = 0.3

    def sample(self, rng: Rng) -> Tensor:
        """Impulse responses; a single 1 where the room is left out."""
        taps = max(2, round(self.high * self.rate))
        length = rng.uniform("reverb length", low=self.low, high=self.high)
        time = torch.arange(taps, device=rng.device) / self.rate
        tail = _standard_noise(rng, taps, "reverb tail")
        tail *= torch.exp(-6.91 * time / length[:, None])
        tail[:, 0] = 0
        energy = rng.uniform("reverb wet", high=self.wet)
        energy = torch.where(rng.bernoulli("reverb p", p=self.p), energy, 0.0)
        tail *= (energy / tail.square().sum(1).clamp_(min=_QUIET)).sqrt()[:, None]
        tail[:, 0] = 1
        return tail

    def apply(self, wave: Tensor, response: Tensor) -> Tensor:
        size = 1 << (wave.shape[1] + response.shape[1] - 2).bit_length()
        if wave.device.type != "cpu":
            return _convolved(wave, response, size)
        # One at a time: a batched transform may round rows differently by their place in it.
        rows = [
            _convolved(w, r, size) if r[1:].any() else w
            for w, r in zip(wave, response, strict=True)
        ]
        return torch.stack(rows)


def _convolved(wave: Tensor, response: Tensor, size: int) -> Tensor:
    product = torch.fft.rfft(wave, n=size) * torch.fft.rfft(response, n=size)
    return torch.fft.irfft(product, n=size)[..., : wave.shape[-1]]


@dataclass(frozen=True)
class Speed:
    """Faster or slower by a factor between 1/`most` and `most`; pitch goes along."""

    most: float = 1.15
    p: float = 0.0

    def sample(self, rng: Rng) -> Tensor:
        """Factors `[B]`, evenly spread on a logarithmic scale."""
        factor = self.most ** rng.uniform("speed", low=-1.0, high=1.0)
        return torch.where(rng.bernoulli("speed p", p=self.p), factor, 1.0)

    def apply(self, wave: Tensor, factor: Tensor) -> Tensor:
        rows = (factor != 1).nonzero().flatten()
        if len(rows) == 0:
            return wave
        out = wave.clone()
        out[rows] = stretch(wave[rows], factor[rows])
        return out
