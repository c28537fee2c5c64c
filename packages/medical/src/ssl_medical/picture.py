"""Blocks as pictures: axial, coronal and sagittal planes, as radiologists hang them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

_HIDDEN = np.array([60, 30, 70], np.uint8)
_COLOURS = np.array(
    [(66, 133, 244), (219, 68, 55), (244, 180, 0), (15, 157, 88), (171, 71, 188),
     (0, 172, 193), (255, 112, 67), (158, 157, 36), (92, 107, 192), (240, 98, 146)],
    np.float32,
)  # fmt: skip
"""Of labels 1, 2, ...; they come round again."""
_SHARE = 0.45
_LEAST = 64


def planes(data: Any, spec: Mapping[str, Any]) -> list[np.ndarray]:
    """uint8 `[H, W, 3]` a sample of normalised views `[B, C, X, Y, Z]` or slices `[B, C, X, Y]`.

    Superior and anterior point up; NaN, which marks what a method hides, is violet. Anything but
    such a tensor has no picture.
    """
    if not isinstance(data, Tensor) or data.dim() not in (4, 5):
        return []
    unit = data.float().cpu().numpy()[:, 0] * spec["std"][0] + spec["mean"][0]
    return [_coloured(_hung(volume)) for volume in unit]


def labelled(unit: np.ndarray, labels: np.ndarray, at: Sequence[int]) -> np.ndarray:
    """uint8 `[H, W, 3]`: the planes of a scan 0..1 `[X, Y, Z]` that meet `at` a voxel, with its
    labels `[X, Y, Z]` in colours over it; small scans are enlarged.
    """
    grey = _coloured(_hung(unit, at))
    seen = _hung(labels, at).astype(np.int64)
    colour = _COLOURS[(seen - 1) % len(_COLOURS)]
    mixed = grey * (1 - _SHARE) + colour * _SHARE
    out = np.where(seen[..., None] > 0, mixed, grey).round().astype(np.uint8)
    times = -(-_LEAST // min(unit.shape))
    return out.repeat(times, axis=0).repeat(times, axis=1)


def fullest(labels: np.ndarray) -> tuple[int, ...]:
    """Where the planes lie that show most different labels, nearest to the middle of those."""
    found = []
    for axis, side in enumerate(labels.shape):
        counts = np.array([len(np.unique(plane)) for plane in np.moveaxis(labels, axis, 0)])
        best = np.flatnonzero(counts == counts.max())
        found.append(int(best[np.abs(best - side // 2).argmin()]))
    return tuple(found)


def _hung(volume: np.ndarray, at: Sequence[int] | None = None) -> np.ndarray:
    """The planes beside one another, a voxel apart; a slice alone. They meet in the middle."""
    if volume.ndim == 2:
        return _upright(volume)
    x, y, z = at or [side // 2 for side in volume.shape]
    shown = [_upright(p) for p in (volume[:, :, z], volume[:, y, :], volume[x, :, :])]
    height = max(plane.shape[0] for plane in shown)
    columns = []
    for plane in shown:
        room = height - plane.shape[0]
        columns.append(np.pad(plane, ((room // 2, room - room // 2), (0, 1))))
    return np.concatenate(columns, axis=1)[:, :-1]


def _upright(plane: np.ndarray) -> np.ndarray:
    """First axis to the right, second up."""
    return plane.T[::-1]


def _coloured(plane: np.ndarray) -> np.ndarray:
    hidden = np.isnan(plane)
    grey = (np.nan_to_num(plane).clip(0, 1) * 255).round().astype(np.uint8)
    return np.where(hidden[..., None], _HIDDEN, grey[..., None])
