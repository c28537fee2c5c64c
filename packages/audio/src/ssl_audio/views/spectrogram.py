"""Random changes of log-mel spectrograms `[B, F, T]`, each drawn from the sample's key."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.rng import Rng


def log_mixup_exp(x: Tensor, background: Tensor, share: Tensor | float) -> Tensor:
    """log((1 - a) e^x + a e^y): two sounds at once, added as energies (BYOL-A: Niizumi 2021).

    `share` a broadcasts against the spectrograms, 0 <= a < 1. The result lies between the two.
    """
    share = torch.as_tensor(share, dtype=x.dtype, device=x.device)
    return torch.logaddexp(x + torch.log1p(-share), background + share.log())


@dataclass(frozen=True)
class MixupParams:
    """Share of the background `[B]` (0: none) and its shape relative to the recording's level."""

    share: Tensor
    background: Tensor


@dataclass(frozen=True)
class Mixup:
    """A background up to `most` of the sum, as in BYOL-A, but of coloured noise.

    BYOL-A mixes in an earlier sample from a memory. A view that holds another sample would depend
    on the batch and on what came before it, and a run could not resume from its step alone; so the
    background is noise of a random smooth colour at the recording's own level.
    """

    most: float = 0.4
    colours: int = 4
    p: float = 1.0

    def sample(self, rng: Rng, bands: int, frames: int) -> MixupParams:
        """For spectrograms of `bands` x `frames`."""
        share = rng.uniform("mixup share", high=self.most)
        place = torch.linspace(0, math.pi, bands, device=rng.device)
        order = torch.arange(1, self.colours + 1, device=rng.device)
        waves = (order[:, None] * place).cos()  # [colours, F]
        height = rng.uniform("mixup colour", self.colours, low=-2.0, high=2.0) / order.sqrt()
        colour = sum(height[:, i, None] * waves[i] for i in range(self.colours))
        # The power of noise in a narrow band is distributed exponentially.
        grain = rng.uniform("mixup grain", bands, frames, low=1e-4, high=1.0).log_().neg_().log_()
        used = rng.bernoulli("mixup p", p=self.p)
        return MixupParams(
            torch.where(used, share, 0.0), torch.as_tensor(colour)[..., None] + grain
        )

    def apply(self, x: Tensor, params: MixupParams) -> Tensor:
        level = x.amax(2).mean(1)[:, None, None]  # of the loudest frames, silence left out
        mixed = log_mixup_exp(x, params.background + level - 1, params.share[:, None, None])
        return torch.where(params.share[:, None, None] > 0, mixed, x)


@dataclass(frozen=True)
class Tilt:
    """Another microphone: a random smooth colour added to all frames, up to about `strength`.

    `strength` is in units of the natural logarithm of power; 2.3 are 10 dB.
    """

    strength: float = 1.0
    waves: int = 3

    def sample(self, rng: Rng, bands: int) -> Tensor:
        """What is added, `[B, F]`."""
        place = torch.linspace(0, math.pi, bands, device=rng.device)
        height = rng.uniform("tilt", self.waves, low=-self.strength, high=self.strength)
        parts = [height[:, i, None] / (i + 1) * ((i + 1) * place).cos() for i in range(self.waves)]
        return torch.stack(parts).sum(0)

    def apply(self, x: Tensor, colour: Tensor) -> Tensor:
        return x + colour[:, :, None]


@dataclass(frozen=True)
class ResizeCrop:
    """BYOL-A's random resize crop: part of a canvas wider than the input, resized back to it.

    The input stands in the middle of a canvas of zeros, `canvas` times as long; a box of `scale`
    times the input's sides is cut out anywhere on it and interpolated (bicubic, corners aligned).
    With `frequency_only` the time axis is left alone (ATST-Frame).
    """

    scale: tuple[float, float] = (0.6, 1.5)
    canvas: float = 1.5
    frequency_only: bool = False

    def sample(self, rng: Rng, bands: int, frames: int) -> Tensor:
        """Boxes (top, left, height, width) in cells of the canvas, int64 `[B, 4]`."""
        whole = int(frames * self.canvas)
        sides = rng.uniform("resize crop sides", 2, low=self.scale[0], high=self.scale[1])
        height = (sides[:, 0] * bands).to(torch.int64).clamp_(1, bands)
        width = (sides[:, 1] * frames).to(torch.int64).clamp_(1, whole)
        top = rng.integers("resize crop top", high=bands - height + 1)
        left = rng.integers("resize crop left", high=whole - width + 1)
        if self.frequency_only:
            width = torch.full_like(width, frames)
            left = torch.full_like(left, (whole - frames) // 2)
        return torch.stack([top, left, height, width], dim=1)

    def apply(self, x: Tensor, boxes: Tensor) -> Tensor:
        frames = x.shape[2]
        before = (int(frames * self.canvas) - frames) // 2
        after = int(frames * self.canvas) - frames - before
        x = _cubic(x, 1, boxes[:, 0], boxes[:, 2], x.shape[1])
        if self.frequency_only:
            return x
        return _cubic(F.pad(x, (before, after)), 2, boxes[:, 1], boxes[:, 3], frames)


def _cubic(x: Tensor, axis: int, start: Tensor, size: Tensor, to: int) -> Tensor:
    """Axis 1 or 2 of `[B, F, T]`: the part start..start+size of each sample, as `to` cells.

    Keys' cubic with a = -0.75 and corners aligned, as torch's bicubic; edges repeat within the
    part.
    """
    steps = torch.arange(to, device=x.device, dtype=torch.float32)
    place = steps * ((size - 1) / max(to - 1, 1)).to(torch.float32)[:, None]  # [B, to]
    first = place.floor()
    t = place - first
    last = (size - 1)[:, None]
    shape = [-1, to, 1] if axis == 1 else [-1, 1, to]
    out = None
    for tap, weight in enumerate(_keys(t), start=-1):
        index = (first.to(torch.int64) + tap).clamp(min=0)
        index = torch.minimum(index, last) + start[:, None]
        wide = index.reshape(shape).expand(-1, *_other(x, axis, to))
        part = x.gather(axis, wide) * weight.reshape(shape)
        out = part if out is None else out + part
    assert out is not None
    return out


def _other(x: Tensor, axis: int, to: int) -> tuple[int, int]:
    return (to, x.shape[2]) if axis == 1 else (x.shape[1], to)


def _keys(t: Tensor, a: float = -0.75) -> list[Tensor]:
    """Weights of the four neighbours at offset t in [0, 1) after the second."""

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


@dataclass(frozen=True)
class SpecMask:
    """SpecAugment (Park et al. 2019) without its time warp: bands and spans set to `fill`.

    `bands` masks of up to `band` of the frequency axis, `spans` masks of up to `span` of the time
    axis; 0 in a normalised spectrogram is its mean. Parameters say what is masked, bool `[B, F]`
    and `[B, T]`.
    """

    bands: int = 1
    band: float = 0.2
    spans: int = 1
    span: float = 0.2
    fill: float = 0.0

    def sample(self, rng: Rng, bands: int, frames: int) -> tuple[Tensor, Tensor]:
        return (
            _stripes(rng, "mask band", self.bands, bands, self.band),
            _stripes(rng, "mask span", self.spans, frames, self.span),
        )

    def apply(self, x: Tensor, params: tuple[Tensor, Tensor]) -> Tensor:
        bands, spans = params
        return x.masked_fill(bands[:, :, None] | spans[:, None, :], self.fill)


def _stripes(rng: Rng, stream: str, count: int, size: int, share: float) -> Tensor:
    """`count` stripes of width U{0..share size}: where any of them lies, bool `[B, size]`."""
    hidden = torch.zeros(len(rng), size, dtype=torch.bool, device=rng.device)
    cells = torch.arange(size, device=rng.device)
    for i in range(count):
        width = rng.integers(f"{stream} width {i}", high=int(share * size) + 1)
        start = rng.integers(f"{stream} start {i}", high=size - width + 1)
        hidden |= (cells >= start[:, None]) & (cells < (start + width)[:, None])
    return hidden


@dataclass(frozen=True)
class Roll:
    """Shifts time (all of it) and frequency (up to `bands` cells) in a circle."""

    time: bool = True
    bands: int = 0

    def sample(self, rng: Rng, frames: int) -> Tensor:
        """(frequency, time) shifts, int64 `[B, 2]`."""
        up = rng.integers("roll frequency", low=-self.bands, high=self.bands + 1)
        on = rng.integers("roll time", high=frames) if self.time else torch.zeros_like(up)
        return torch.stack([up, on], dim=1)

    def apply(self, x: Tensor, shift: Tensor) -> Tensor:
        for axis in (1, 2):
            size = x.shape[axis]
            index = (torch.arange(size, device=x.device) - shift[:, axis - 1, None]) % size
            shape = [-1, size, 1] if axis == 1 else [-1, 1, size]
            x = x.gather(axis, index.reshape(shape).expand_as(x))
        return x
