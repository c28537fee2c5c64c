"""Log-mel spectrograms on the device, in the two dialects audio models are trained on.

"kaldi" is `torchaudio.compliance.kaldi.fbank` (frames inside the signal, mean removed,
pre-emphasis, symmetric Hann window, mel scale 1127 ln(1 + f/700)); "stft" is
`torchaudio.transforms.MelSpectrogram` (frames centred with reflection, periodic Hann window, HTK
mel scale), then a logarithm. Both agree with torchaudio to 1e-4.

On a CPU recordings go through one at a time in memory that is kept for the next, pre-emphasis is
done once for overlapping frames, and each block of filters multiplies only the bins it touches.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 12
"""Mel filters multiplied at once."""
_PIECE = 512
"""Frames computed at once on a CPU: what they need stays in its cache."""
_MOST_KEPT = 4
"""Configurations whose memory a thread keeps (4 MB for transforms of 1024)."""
_LONGEST = 1 << 18
"""Samples of a recording, the longest whose memory is kept."""
_EMPHASIS = 0.97


@dataclass(frozen=True)
class FeatureConfig:
    """How a wave becomes a log-mel spectrogram. Part of a model: stored with its weights.

    `window` and `hop` are in samples. `floor` is added before the logarithm ("stft") or is the
    least value it takes ("kaldi"). `mean` and `std` are the published statistics of the data set
    a preset is known from, if any, and `divisor` is how many standard deviations papers of this
    dialect divide by.
    """

    dialect: Literal["kaldi", "stft"] = "stft"
    rate: int = 16_000
    mels: int = 64
    n_fft: int = 1024
    window: int = 1024
    hop: int = 160
    low: float = 60.0
    high: float = 7800.0
    floor: float = 1.1920929e-07
    divisor: float = 1.0
    mean: float | None = None
    std: float | None = field(default=None)

    def at(self, rate: int) -> FeatureConfig:
        """The same for waves of another rate: times in seconds stay, the band is cut to it."""
        if rate == self.rate:
            return self
        scale = rate / self.rate
        window = round(self.window * scale)
        n_fft = round(self.n_fft * scale)
        if self.dialect == "kaldi":
            n_fft = 1 << (window - 1).bit_length()
        return replace(
            self,
            rate=rate,
            window=window,
            n_fft=max(n_fft, window),
            hop=round(self.hop * scale),
            high=min(self.high, rate / 2),
        )

    def samples(self, frames: int) -> int:
        """Samples of a wave that gives exactly `frames` frames."""
        rest = self.window if self.dialect == "kaldi" else 0
        return (frames - 1) * self.hop + rest

    def frames(self, samples: int) -> int:
        """Frames of a wave of `samples` samples."""
        if self.dialect == "kaldi":
            return max(0, 1 + (samples - self.window) // self.hop)
        return 1 + samples // self.hop


PRESETS = {
    # AST, SSAST, AudioMAE, EAT: Kaldi features of waves in -1..1, statistics of AudioSet.
    "fbank128": FeatureConfig(
        dialect="kaldi",
        mels=128,
        n_fft=512,
        window=400,
        low=20.0,
        high=8000.0,
        divisor=2.0,
        mean=-4.2677393,
        std=4.5689974,
    ),
    # BYOL-A, ATST-Clip.
    "mel64": FeatureConfig(),
    # Speech: TERA, APC and their relatives, 25 ms windows.
    "mel80": FeatureConfig(mels=80, n_fft=400, window=400, low=0.0, high=8000.0, floor=1e-6),
}


def log_mel(wave: Tensor, config: FeatureConfig) -> Tensor:
    """`[B, T]` in -1..1 at `config.rate` to log-mel `[B, mels, frames]`, float32."""
    # Sums of hundreds of squares need float32, whatever the networks compute in.
    with torch.autocast(wave.device.type, enabled=False):
        return _log_mel(wave.to(torch.float32), config)


def _log_mel(wave: Tensor, config: FeatureConfig) -> Tensor:
    plan = _plan(config, wave.device.type)
    if config.dialect == "stft" and wave.shape[1] <= plan.pad:
        raise ValueError(f"{wave.shape[1]} samples are too few for n_fft {config.n_fft}")
    # Stand-ins of planned runs are no plain tensors; reused memory would outlive their mode.
    if wave.device.type == "cpu" and type(wave) is Tensor and not wave.requires_grad:
        return plan.one_by_one(wave)
    mel = plan.together(wave)
    return (mel.clamp(min=config.floor) if config.dialect == "kaldi" else mel + config.floor).log()


class _Buffers:
    """Where a thread computes one piece of a recording after another.

    Fresh memory costs more than the arithmetic: the system clears every page of it.
    """

    def __init__(self, config: FeatureConfig) -> None:
        bins = config.n_fft // 2 + 1
        with torch.inference_mode(False):
            self.windowed = torch.zeros(_PIECE, config.n_fft, device="cpu")
            self.squares = torch.empty(_PIECE, 2 * bins, device="cpu")
            self.wave = torch.empty(0, device="cpu")

    def samples(self, count: int) -> Tensor:
        """Room for `count` samples, kept unless it is a long recording's."""
        if count > _LONGEST:
            return torch.empty(count)
        if count > len(self.wave):
            with torch.inference_mode(False):
                self.wave = torch.empty(count, device="cpu")
        return self.wave[:count]


class _Kept(threading.local):
    """Each thread's own buffers."""

    def __init__(self) -> None:
        self.by_config: dict[FeatureConfig, _Buffers] = {}

    def of(self, config: FeatureConfig) -> _Buffers:
        """The buffers of the last configurations, made when they are first asked for."""
        found = self.by_config.get(config)
        if found is None:
            if len(self.by_config) >= _MOST_KEPT:
                self.by_config.pop(next(iter(self.by_config)))
            found = self.by_config[config] = _Buffers(config)
        return found


_kept = _Kept()


@dataclass(frozen=True)
class _Plan:
    """The constants of one configuration on one kind of device."""

    config: FeatureConfig
    window: Tensor
    """`[width]`, in the middle of n_fft for "stft"."""
    bank: Tensor
    """`[mels, bins]`."""
    blocks: tuple[tuple[slice, slice, Tensor], ...]
    """Filters side by side, the numbers of a spectrum that any of them touches, and their weights.

    A spectrum lies in memory as real and imaginary parts by turns, so every weight stands twice.
    """

    @property
    def pad(self) -> int:
        """Samples reflected before and after a wave, so that frames are centred."""
        return self.config.n_fft // 2 if self.config.dialect == "stft" else 0

    def one_by_one(self, wave: Tensor) -> Tensor:
        """Log power in mel bands `[B, mels, N]`, recording by recording in reused memory."""
        config, buffers, window = self.config, _kept.of(self.config), self.window
        count = max(0, 1 + (wave.shape[1] + 2 * self.pad - len(window)) // config.hop)
        mel = wave.new_empty(len(wave), config.mels, count)
        for row, out in zip(wave, mel, strict=True):
            frames = self._prepared(row, buffers).unfold(0, len(window), config.hop)
            means = self._means(row) if config.dialect == "kaldi" else None
            for first in range(0, count, _PIECE):
                piece = frames[first : first + _PIECE]
                windowed = buffers.windowed[: len(piece)]
                part = torch.mul(piece, window, out=windowed[:, : len(window)])
                if means is not None:
                    part.addr_(means[first : first + _PIECE], window, alpha=_EMPHASIS - 1)
                self._powers(windowed, buffers, out[:, first : first + _PIECE])
            if config.dialect == "kaldi":
                out.clamp_(min=config.floor).log_()
            else:
                out.add_(config.floor).log_()
        return mel

    def _prepared(self, row: Tensor, buffers: _Buffers) -> Tensor:
        """A wave `[T]` with reflected ends, or pre-emphasised, in kept memory."""
        pad, count = self.pad, len(row)
        room = buffers.samples(count + 2 * pad)
        if self.config.dialect == "kaldi":
            # Of a whole wave: the first sample of a frame, before which Kaldi sees nothing, is
            # where the window is 0.
            room[:1] = row[:1]
            torch.sub(row[1:], row[:-1], alpha=_EMPHASIS, out=room[1:])
            return room
        room[:pad] = row[1 : pad + 1].flip(0)
        room[pad : pad + count] = row
        room[pad + count :] = row[count - pad - 1 : count - 1].flip(0)
        return room

    def _means(self, wave: Tensor) -> Tensor:
        """What Kaldi takes off every frame before pre-emphasis."""
        return wave.unfold(-1, len(self.window), self.config.hop).mean(-1)

    def _powers(self, windowed: Tensor, buffers: _Buffers, out: Tensor) -> None:
        """Windowed frames `[n, n_fft]` to power in mel bands `[mels, n]`."""
        # With `out=` torch would compute elsewhere and copy.
        parts = torch.view_as_real(torch.fft.rfft(windowed)).flatten(1)
        squares = torch.mul(parts, parts, out=buffers.squares[: len(windowed)])
        for rows, numbers, weights in self.blocks:
            torch.mm(weights, squares[:, numbers].T, out=out[rows])

    def together(self, wave: Tensor) -> Tensor:
        """Power in mel bands `[B, mels, N]`, all recordings at once."""
        spectrum = torch.fft.rfft(self._windowed(wave), n=self.config.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()  # [B, N, bins]
        return self.bank @ power.transpose(1, 2)

    def _windowed(self, wave: Tensor) -> Tensor:
        """Windowed frames of waves `[B, T]`: `[B, N, width]`."""
        width, hop = len(self.window), self.config.hop
        if self.config.dialect == "stft":
            wave = F.pad(wave.unsqueeze(1), (self.pad, self.pad), mode="reflect").squeeze(1)
            return wave.unfold(1, width, hop) * self.window
        offset = self._means(wave).unsqueeze(-1) * (1 - _EMPHASIS)
        wave = torch.cat([wave[:, :1], wave[:, 1:] - _EMPHASIS * wave[:, :-1]], dim=1)
        return (wave.unfold(1, width, hop) - offset) * self.window


@lru_cache(maxsize=16)
def _plan(config: FeatureConfig, device: str) -> _Plan:
    if config.dialect == "stft":
        window = torch.hann_window(config.window)
        left = (config.n_fft - config.window) // 2
        window = F.pad(window, (left, config.n_fft - config.window - left))
    else:
        window = torch.hann_window(config.window, periodic=False)
    bank = mel_bank(config)
    return _Plan(config, window.to(device), bank.to(device), _blocks(bank))


def _blocks(bank: Tensor) -> tuple[tuple[slice, slice, Tensor], ...]:
    twice = bank.repeat_interleave(2, dim=1)
    found = []
    for first in range(0, len(bank), _BLOCK):
        rows = slice(first, min(len(bank), first + _BLOCK))
        used = twice[rows].any(0).nonzero().flatten()
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 2)
        found.append((rows, slice(low, high), twice[rows, low:high].contiguous()))
    return tuple(found)


def mel_bank(config: FeatureConfig) -> Tensor:
    """Triangular filters `[mels, n_fft / 2 + 1]`, float32.

    "stft" triangles have straight sides in hertz, "kaldi" ones in mel (and nothing at Nyquist).
    """
    bins = torch.linspace(0, config.rate / 2, config.n_fft // 2 + 1, dtype=torch.float64)
    low, high = (float(_mel(torch.tensor(f, dtype=torch.float64))) for f in _band(config))
    edges = torch.linspace(low, high, config.mels + 2, dtype=torch.float64)
    places = _mel(bins) if config.dialect == "kaldi" else bins
    if config.dialect == "stft":
        edges = 700 * ((edges / 1127).exp() - 1)
    left, middle, right = (edges[i : config.mels + i, None] for i in range(3))
    up, down = (places - left) / (middle - left), (right - places) / (right - middle)
    bank = torch.minimum(up, down).clamp_(min=0)
    if config.dialect == "kaldi":
        bank[:, -1] = 0
    return bank.to(torch.float32)


def _band(config: FeatureConfig) -> tuple[float, float]:
    return config.low, min(config.high, config.rate / 2)


def _mel(hertz: Tensor) -> Tensor:
    """HTK's mel scale, 2595 log10(1 + f / 700)."""
    return 1127 * (1 + hertz / 700).log()


def frame_times(config: FeatureConfig, frames: int) -> Tensor:
    """The middle of every frame in seconds, float64 `[frames]`."""
    middle = config.window / 2 if config.dialect == "kaldi" else 0.0
    steps = torch.arange(frames, dtype=torch.float64) * config.hop + middle
    return steps / config.rate


def band_centres(config: FeatureConfig) -> list[float]:
    """The middle frequency of every mel band, in hertz."""
    low, high = (1127 * math.log(1 + f / 700) for f in _band(config))
    step = (high - low) / (config.mels + 1)
    return [700 * (math.exp((low + step * (i + 1)) / 1127) - 1) for i in range(config.mels)]
