"""What every reader returns, and the checks that come before any voxel is read."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_core.errors import CorruptSample

MAX_VOXELS = 1 << 29
"""A scan of 512 x 512 x 2048, or 2 GB in float32."""
_SMALLEST, _LARGEST = 1e-3, 100.0
_SMALL, _DENSEST = 1 << 26, 200
"""Bytes that may come from anything; beyond, by how much a scan's noise lets it be compressed."""


@dataclass(frozen=True)
class Volume:
    """A scan: `data` float32 `[C, X, Y, Z]`, `affine` float64 `[4, 4]` from voxels to RAS mm.

    `modality` is "CT", "MR", another DICOM word or "" where the file does not say. No name, date
    or identifier of a person is kept.
    """

    data: np.ndarray
    affine: np.ndarray
    modality: str = ""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along each axis."""
        return spacing_of(self.affine)


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Lengths of the three columns of an affine."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def check_size(sides: Sequence[int], max_voxels: int) -> None:
    """Refuses empty and oversized scans by their header, before anything is decompressed."""
    count = math.prod(int(side) for side in sides)
    if count <= 0 or min(sides) < 1:
        raise CorruptSample(f"size {' x '.join(map(str, sides))} holds no voxel")
    if count > max_voxels:
        raise CorruptSample(
            f"{' x '.join(map(str, sides))} voxels exceed the cap of {max_voxels} (max_voxels)"
        )


def check_expansion(stored: int, expected: int) -> None:
    """Refuses a scan whose `stored` bytes claim to hold so many more that only zeros could do it.

    Segmentations, which are nearly all zero, are not held against this.
    """
    if expected > _SMALL and expected > _DENSEST * stored:
        raise CorruptSample(
            f"{stored} bytes claim to expand to {expected}, {expected // max(1, stored)} times as "
            "many; no scan does, so this is a damaged file or a decompression bomb"
        )


def check_affine(affine: np.ndarray) -> np.ndarray:
    """The affine in float64; refuses zero, infinite or absurd spacing, and flat axes."""
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise CorruptSample("the affine (position and spacing) is not finite")
    spacing = spacing_of(affine)
    if min(spacing) < _SMALLEST or max(spacing) > _LARGEST:
        words = " x ".join(f"{s:g}" for s in spacing)
        raise CorruptSample(
            f"spacing {words} mm lies outside {_SMALLEST:g} to {_LARGEST:g}; correct the header"
        )
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.01:
        raise CorruptSample("the axes of the affine do not span space; correct the header")
    return affine


def check_values(data: np.ndarray) -> np.ndarray:
    """float32 data; refuses NaN and infinity, which would spread through every resampling."""
    data = np.asarray(data)
    if data.dtype.fields is not None or np.iscomplexobj(data):
        raise CorruptSample(f"voxels of type {data.dtype} are no intensities")
    data = data.astype(np.float32)
    bad = int(data.size - np.isfinite(data).sum())
    if bad:
        raise CorruptSample(f"{bad} voxels are NaN or infinite; replace them and write again")
    return data


def inflate(data: bytes, expected: int, *, wbits: int = 47) -> bytes:
    """zlib or gzip data of exactly `expected` bytes; never makes more, whatever the file claims."""
    try:
        machine = zlib.decompressobj(wbits)
        out = machine.decompress(data, expected + 1)
    except zlib.error as error:
        raise CorruptSample(f"compressed voxels are damaged: {error}") from error
    if len(out) != expected:
        more = "more" if len(out) > expected else "fewer"
        raise CorruptSample(
            f"compressed voxels hold {more} than the {expected} bytes of the header"
        )
    return out
