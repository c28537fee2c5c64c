"""From a scan to compact voxels: RAS axes, even spacing, one intensity scale, foreground, int16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssl_core.errors import CorruptSample, UserError
from ssl_medical.files.volume import Volume

SCALE = 32767
"""What intensity 1 is stored as."""
WINDOWS = {
    "wide": (-1000.0, 1000.0),
    "abdomen": (-175.0, 250.0),
    "soft": (-125.0, 225.0),
    "lung": (-1150.0, 350.0),
    "brain": (0.0, 80.0),
}
"""Hounsfield units that become 0 and 1: Models Genesis, VoCo, Alice and two display presets."""
Scaling = Literal["auto", "window", "percentiles"]


@dataclass(frozen=True)
class Preparation:
    """How voxels are made comparable between scans.

    `spacing` in mm (None keeps the file's). `scaling` "window" maps the Hounsfield `window` to
    0..1, "percentiles" the 0.5th and 99.5th percentile of each channel's foreground; "auto" takes
    the first for CT. `crop` cuts away the margin below 5 % of the scale.
    """

    spacing: tuple[float, float, float] | None = None
    scaling: Scaling = "auto"
    window: tuple[float, float] = WINDOWS["wide"]
    crop: bool = True

    def __call__(self, volume: Volume, modality: str = "") -> np.ndarray:
        """int16 `[C, X, Y, Z]`; 0..`SCALE` is the intensity scale."""
        data, _ = self.aligned(volume)
        unit = self.scaled(data, modality or volume.modality)
        if self.crop:
            unit = unit[(slice(None), *foreground(unit))]
        return np.ascontiguousarray((unit * SCALE).round().astype(np.int16))

    def aligned(self, volume: Volume, *, nearest: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Data with axes right, anterior, superior at the wanted spacing, and its affine."""
        data, affine = to_ras(volume.data, volume.affine)
        if self.spacing is None:
            return data, affine
        return to_spacing(data, affine, self.spacing, nearest=nearest)

    def scaled(self, data: np.ndarray, modality: str) -> np.ndarray:
        """float32 in 0..1."""
        window = self.scaling == "window" or (self.scaling == "auto" and modality == "CT")
        if window:
            low, high = self.window
            return ((data - low) / (high - low)).clip(0, 1)
        return np.stack([_by_percentiles(channel) for channel in data])


def window_of(value: str | Sequence[float]) -> tuple[float, float]:
    """A named or given Hounsfield window; `UserError` for anything else."""
    if isinstance(value, str):
        if value not in WINDOWS:
            raise UserError(
                f"data.options.window: {value!r}; choose {', '.join(WINDOWS)} or two HU"
            )
        return WINDOWS[value]
    if len(value) != 2 or not value[0] < value[1]:
        raise UserError(f"data.options.window: {value!r} is no pair (low, high) of HU")
    return float(value[0]), float(value[1])


def to_ras(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Axes permuted and flipped so that they run nearest to right, anterior, superior."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(affine)
    if np.isnan(orientation).any():
        raise CorruptSample("the affine leaves an axis without direction; correct the header")
    turned = apply_orientation(np.moveaxis(data, 0, -1), orientation)
    return np.moveaxis(turned, -1, 0), affine @ inv_ornt_aff(orientation, data.shape[1:])


def to_spacing(
    data: np.ndarray, affine: np.ndarray, spacing: Sequence[float], *, nearest: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Resampled along each axis in turn; the outer faces of the scan stay where they are.

    Linear, with a triangle as wide as the new voxel where that is larger (antialias); `nearest`
    keeps label values.
    """
    affine = affine.copy()
    old = np.linalg.norm(affine[:3, :3], axis=0)
    for axis, (have, want) in enumerate(zip(old, spacing, strict=True)):
        sides = data.shape[1 + axis]
        count = max(1, round(sides * have / want))
        step = sides / count  # old voxels a new one covers
        if count == sides:
            continue
        centre = (np.arange(count) + 0.5) * step - 0.5
        if nearest:
            index = centre.round().astype(np.int64).clip(0, sides - 1)
            data = data.take(index, axis=1 + axis)
        else:
            weights = _triangles(centre, sides, max(1.0, step))
            data = np.moveaxis(np.moveaxis(data, 1 + axis, -1) @ weights.T, -1, 1 + axis)
        affine[:3, 3] += affine[:3, axis] * (0.5 * step - 0.5)
        affine[:3, axis] *= step
    return data, affine


def _triangles(centre: np.ndarray, sides: int, width: float) -> np.ndarray:
    """Weights float32 `[new, old]` of a triangle filter, rows summing to one."""
    distance = np.abs(centre[:, None] - np.arange(sides)[None]) / width
    weights = (1 - distance).clip(min=0)
    weights[np.arange(len(centre)), centre.round().astype(np.int64).clip(0, sides - 1)] += 1e-9
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def foreground(unit: np.ndarray, *, level: float = 0.05) -> tuple[slice, slice, slice]:
    """The box of voxels above `level` in any channel; everything where none is."""
    inside = (unit > level).any(0)
    if not inside.any():
        return (slice(None),) * 3
    found = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        rows = np.flatnonzero(inside.any(others))
        found.append(slice(int(rows[0]), int(rows[-1]) + 1))
    return found[0], found[1], found[2]


def _by_percentiles(channel: np.ndarray) -> np.ndarray:
    """0..1 between percentiles of what lies above the mean of all (air is most of a scan)."""
    body = channel[channel > channel.mean()]
    if body.size == 0:
        raise CorruptSample("a channel is constant")
    low, high = np.percentile(channel, 0.5), np.percentile(body, 99.5)
    if not high > low:
        raise CorruptSample("a channel is constant")
    return ((channel - low) / (high - low)).clip(0, 1).astype(np.float32)
