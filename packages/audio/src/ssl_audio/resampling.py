"""Changing the rate of waves: fixed ratios by a polyphase filter, any factor by windowed sinc.

The filter is the one of torchaudio's `resample` (Hann-windowed sinc of six zero crossings each
side, cut off at 0.99 of the lower Nyquist frequency).
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

CROSSINGS = 6
ROLLOFF = 0.99
_LARGEST = 640
"""Largest period of a ratio; others are replaced by the nearest (44101 Hz: off by 2e-7)."""


def resample(wave: Tensor, rate: int, to: int) -> Tensor:
    """`[B, T]` at `rate` to `[B, ceil(T to / rate)]` at `to`."""
    if rate == to:
        return wave
    ratio = Fraction(to, rate).limit_denominator(_LARGEST)
    period, phases = ratio.denominator, ratio.numerator
    kernel, width = _polyphase(period, phases)
    kernel = kernel.to(wave)
    length = -(-wave.shape[1] * phases // period)
    padded = F.pad(wave, (width, width + period))
    frames = padded.unfold(1, kernel.shape[1], period)  # [B, n, K]
    with torch.autocast(wave.device.type, enabled=False):
        if wave.device.type == "cpu":
            # One product a recording: the bits must not depend on what else is in the batch.
            out = torch.stack([row @ kernel.T for row in frames])
        else:
            out = frames @ kernel.T
    return out.flatten(1)[:, :length]  # the phases of one period are neighbours


@lru_cache(maxsize=64)
def _polyphase(period: int, phases: int) -> tuple[Tensor, int]:
    """One filter a phase, `[phases, 2 width + period]` float32, and its one-sided width."""
    base = min(period, phases) * ROLLOFF
    width = math.ceil(CROSSINGS * period / base)
    taps = torch.arange(-width, width + period, dtype=torch.float64) / period
    shift = -torch.arange(phases, dtype=torch.float64) / phases
    t = (shift[:, None] + taps) * base
    kernel = _windowed_sinc(t) * (base / period)
    return kernel.to(torch.float32), width


def _windowed_sinc(t: Tensor) -> Tensor:
    t = t.clamp(-CROSSINGS, CROSSINGS)
    return torch.sinc(t) * (t * (math.pi / (2 * CROSSINGS))).cos().square()


def stretch(wave: Tensor, factor: Tensor) -> Tensor:
    """Plays every recording `factor` (`[B]`) times as fast, around its middle: `[B, T]` again.

    Speed and pitch change together, as of a tape; what runs out is silence.
    """
    count = wave.shape[1]
    middle = (count - 1) / 2
    steps = torch.arange(count, device=wave.device, dtype=torch.float64) - middle
    place = middle + steps * factor.to(torch.float64)[:, None]  # [B, T] on the old time axis
    first = place.floor()
    rest = (place - first).to(torch.float32)
    index = first.to(torch.int64)
    scale = (ROLLOFF / factor.clamp(min=1)).to(torch.float32)[:, None]
    reach = math.ceil(CROSSINGS / float(scale.min()))
    out = torch.zeros_like(wave)
    for tap in range(1 - reach, reach + 1):
        there = index + tap
        inside = (there >= 0) & (there < count)
        weight = _windowed_sinc((tap - rest) * scale).mul_(scale).mul_(inside)
        # A product, then a sum: a fused operation could round differently in a batch's last rows.
        out += wave.gather(1, there.clamp(0, count - 1)) * weight
    return out
