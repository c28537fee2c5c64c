"""Blocks as pictures: axial, coronal and sagittal planes, as radiologists hang them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

_HIDDEN = np.array([60, 30, 70], np.uint8)


def planes(data: Any, spec: Mapping[str, Any]) -> list[np.ndarray]:
    """uint8 `[H, W, 3]` a sample of normalised views `[B, C, X, Y, Z]` or slices `[B, C, X, Y]`.

    Superior and anterior point up; NaN, which marks what a method hides, is violet. Anything but
    such a tensor has no picture.
    """
    if not isinstance(data, Tensor) or data.dim() not in (4, 5):
        return []
    unit = data.float().cpu().numpy()[:, 0] * spec["std"][0] + spec["mean"][0]
    return [_coloured(_hung(volume)) for volume in unit]


def _hung(volume: np.ndarray) -> np.ndarray:
    """The planes beside one another, a voxel apart; a slice alone."""
    if volume.ndim == 2:
        return _upright(volume)
    x, y, z = (side // 2 for side in volume.shape)
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
