"""Spectrograms and waves as pictures for the report."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

# Anchors of a dark-to-light map that also reads in grey (after matplotlib's magma).
_COLOURS = np.array(
    [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]],
    dtype=np.float64,
)
_HIDDEN = (176, 190, 200)
_RANGE = (-2.5, 2.5)
"""Normalised log-mel values drawn darkest and lightest."""
_WAVE = (64, 320)
"""Height and width of a drawn wave."""


def draw(data: Any) -> list[np.ndarray]:
    """One uint8 picture `[H, W, 3]` a recording: low frequencies below, time to the right.

    `data` is spectrograms `[B, 1, F, T]` or waves `[B, T]`; NaN is drawn as a flat grey.
    """
    if not isinstance(data, Tensor) or data.dim() not in (2, 4):
        return []
    rows = data.detach().float().cpu()
    if data.dim() == 4:
        return [_spectrogram(row[0].flip(0).numpy()) for row in rows]
    return [_wave(row) for row in rows]


def _spectrogram(values: np.ndarray) -> np.ndarray:
    hidden = np.isnan(values)
    unit = (np.nan_to_num(values) - _RANGE[0]) / (_RANGE[1] - _RANGE[0])
    place = unit.clip(0, 1) * (len(_COLOURS) - 1)
    low = np.minimum(place.astype(int), len(_COLOURS) - 2)
    share = (place - low)[..., None]
    pixels = _COLOURS[low] * (1 - share) + _COLOURS[low + 1] * share
    pixels[hidden] = _HIDDEN
    out: np.ndarray = pixels.round().astype(np.uint8)
    return out


def _wave(wave: Tensor) -> np.ndarray:
    """The outline: from the least to the largest sample of each column."""
    height, width = _WAVE
    pieces = torch.nan_to_num(wave).unfold(
        0, max(1, len(wave) // width), max(1, len(wave) // width)
    )
    peak = float(pieces.abs().max().clamp(min=1e-6))
    top = ((1 - pieces.amax(1) / peak) / 2 * (height - 1)).round()
    bottom = ((1 - pieces.amin(1) / peak) / 2 * (height - 1)).round()
    rows = torch.arange(height)[:, None]
    inside = ((rows >= top) & (rows <= bottom)).numpy()[..., None]
    out: np.ndarray = np.where(inside, np.uint8(40), np.uint8(240)).repeat(3, axis=2)
    return out
