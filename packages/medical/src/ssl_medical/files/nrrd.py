"""NRRD with raw or gzip encoding; pynrrd parses the header, the voxels are read within its size."""

from __future__ import annotations

import math
import os

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_medical.files.volume import (
    Volume,
    check_affine,
    check_expansion,
    check_size,
    check_values,
    inflate,
)

# Signs that turn coordinates of a space into RAS.
_SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
}
_SPACES |= {"".join(part[0] for part in name.split("-")): s for name, s in _SPACES.items()}
_BYTES = {"raw": None, "gzip": 47, "gz": 47}


def read_nrrd(path: str, *, max_voxels: int, sparse: bool = False) -> Volume:
    """A volume of three axes, or of four whose first is a list of channels."""
    import nrrd

    try:
        with open(path, "rb") as file:
            header = nrrd.read_header(file)
            start = file.tell()
        dtype = nrrd.reader._determine_datatype(header)
    except (nrrd.NRRDError, ValueError, KeyError, OSError) as error:
        raise CorruptSample(f"NRRD: {error}") from error
    if "data file" in header or "datafile" in header:
        raise CorruptSample("NRRD with voxels in another file; join them into one .nrrd")
    encoding = str(header.get("encoding", "raw")).lower()
    if encoding not in _BYTES:
        raise CorruptSample(f"NRRD encoding {encoding!r}; write it as raw or gzip")
    sides = [int(side) for side in header["sizes"]]
    check_size(sides, max_voxels)
    if len(sides) not in (3, 4):
        raise CorruptSample(f"NRRD with {len(sides)} axes is no volume")
    expected = math.prod(sides) * dtype.itemsize
    if not sparse:
        check_expansion(os.path.getsize(path), expected)
    data = _voxels(path, start, encoding, expected)
    voxels = np.frombuffer(data, dtype).reshape(sides, order="F")
    directions = np.atleast_2d(np.asarray(header.get("space directions", np.eye(3)), np.float64))
    rows = directions[-3:]  # a list of channels comes first and has no direction
    signs = np.array(_SPACES.get(str(header.get("space", "right-anterior-superior")).lower(), ()))
    if signs.size != 3:
        raise CorruptSample(f"NRRD space {header.get('space')!r} is not known")
    affine = np.eye(4)
    affine[:3, :3] = signs[:, None] * rows.T
    affine[:3, 3] = signs * np.asarray(header.get("space origin", np.zeros(3)), np.float64)
    return Volume(check_values(voxels if len(sides) == 4 else voxels[None]), check_affine(affine))


def _voxels(path: str, start: int, encoding: str, expected: int) -> bytes:
    size = os.path.getsize(path) - start
    if size > expected + (1 << 16):
        raise CorruptSample(f"NRRD holds {size} bytes of voxels, its header {expected}")
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read()
    wbits = _BYTES[encoding]
    if wbits is not None:
        return inflate(data, expected, wbits=wbits)
    if len(data) < expected:
        raise CorruptSample(f"NRRD ends after {len(data)} of {expected} bytes")
    return data[:expected]
