"""Mel-frequency cepstral coefficients with their slopes: what HuBERT's first clusters are made of.

`torchaudio.compliance.kaldi.mfcc` with its defaults (23 bands, 13 coefficients, lifter 22, no
energy) but a Hann window, and `torchaudio.functional.compute_deltas` once and twice.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_audio.features import FeatureConfig, log_mel

COEFFICIENTS = 13
_LIFTER = 22
_BANDS = 23
_REACH = 2
"""Frames to either side that a slope is fitted to."""


def mfcc(wave: Tensor, *, hop: int = 160) -> Tensor:
    """Waves `[B, T]` of 16 kHz to cepstra `[B, N, 13]`, a frame of 25 ms every `hop` samples."""
    config = FeatureConfig(
        dialect="kaldi", mels=_BANDS, n_fft=512, window=400, hop=hop, low=20.0, high=8000.0
    )
    mel = log_mel(wave, config)  # [B, 23, N]
    order = torch.arange(COEFFICIENTS, device=wave.device)
    band = torch.arange(_BANDS, device=wave.device) + 0.5
    cosine = (math.pi / _BANDS * order[:, None] * band).cos() * math.sqrt(2 / _BANDS)
    cosine[0] *= math.sqrt(0.5)
    lifter = 1 + _LIFTER / 2 * (math.pi * order / _LIFTER).sin()
    return torch.einsum("cf,bfn->bnc", lifter[:, None] * cosine, mel)


def slopes(frames: Tensor) -> Tensor:
    """How fast each number of `[B, N, C]` rises a frame: a line through five frames, ends held."""
    x = frames.transpose(1, 2)
    x = F.pad(x, (_REACH, _REACH), mode="replicate")
    weight = torch.arange(-_REACH, _REACH + 1, device=x.device, dtype=x.dtype)
    fitted = x.unfold(2, 2 * _REACH + 1, 1) @ (weight / weight.square().sum())
    return fitted.transpose(1, 2)


def cepstra(wave: Tensor, count: int, *, hop: int = 320) -> Tensor:
    """`[B, count, 39]`: coefficients, their slopes and the slopes of these.

    Zeros after the end make one frame of every whole `hop` samples, as the wave encoders do.
    """
    static = mfcc(F.pad(wave, (0, 400 - hop)), hop=hop)[:, :count]
    rising = slopes(static)
    return torch.cat([static, rising, slopes(rising)], dim=2)
