"""NIfTI-1 and NIfTI-2, plain or gzipped, through nibabel."""

from __future__ import annotations

import gzip
import logging
import math
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Literal

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_medical.files.volume import (
    Volume,
    check_affine,
    check_expansion,
    check_size,
    check_values,
)

FourD = Literal["refuse", "first", "channels"]
_KINDS = {348: (("f", 108), ("3f", 80), ("h", 254)), 540: (("q", 168), ("3d", 112), ("i", 348))}
"""By the size of the header (NIfTI-1, NIfTI-2): type and place of three of its values.

Where the voxels begin, the spacing of three axes, and whether an affine overrides that.
"""
_MOST_BEFORE = 1 << 24
"""Bytes that extensions may take before the voxels."""


def read_nifti(
    path: str, *, max_voxels: int, four_d: FourD = "refuse", sparse: bool = False
) -> Volume:
    """A volume; `four_d` says what a fourth axis is: an error, time (its first), or channels.

    The header bounds what is decompressed: nibabel reads no byte beyond it. Unless `sparse`, it
    may not promise more than a scan's file can hold.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    packed = path.lower().endswith(".gz")
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:  # type: ignore[attr-defined]
            _check_header(file)
        with _quiet():  # what it mends is either harmless or refused above
            image = nibabel.load(path)
        sides = tuple(int(side) for side in image.shape)
    except (ImageFileError, HeaderDataError, ValueError, OSError, EOFError, zlib.error) as error:
        raise CorruptSample(f"NIfTI: {error}") from error
    while len(sides) > 3 and sides[-1] == 1:
        sides = sides[:-1]
    sides = sides + (1,) * (3 - len(sides))
    check_size(sides, max_voxels)
    if len(sides) > 4 or (len(sides) == 4 and four_d == "refuse"):
        raise CorruptSample(
            f"{len(sides)}-D file of {' x '.join(map(str, sides))}; "
            "set data.options.four_d to first (of a time series) or channels"
        )
    if packed and not sparse:
        check_expansion(os.path.getsize(path), image.get_data_dtype().itemsize * math.prod(sides))
    affine = check_affine(image.affine)
    try:
        data = np.asanyarray(image.dataobj).reshape(sides)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CorruptSample(f"NIfTI voxels: {error}") from error
    if data.ndim == 4:
        data = data[..., :1] if four_d == "first" else data
        return Volume(check_values(np.moveaxis(data, 3, 0)), affine)
    return Volume(check_values(data[None]), affine)


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing from nibabel's log in this thread.

    Its own suppressor takes the log's handlers away for good, after which Python prints warnings.
    """
    from nibabel.imageglobals import logger

    logger.addFilter(_heard)  # adding it again changes nothing
    _reading.quiet = True
    try:
        yield
    finally:
        _reading.quiet = False


_reading = threading.local()


def _heard(record: logging.LogRecord) -> bool:
    return not getattr(_reading, "quiet", False)


def _check_header(file: IO[bytes]) -> None:
    """Refuses what nibabel would mend or follow: no spacing, extensions of any claimed length."""
    header = file.read(min(_KINDS))
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", header.ljust(4))
        if size not in _KINDS:
            continue
        header = (header + file.read(size - len(header))).ljust(size)
        found = (struct.unpack_from(order + kind, header, at) for kind, at in _KINDS[size])
        (start,), spacing, (affine,) = found
        if affine <= 0 and 0 in spacing:
            raise CorruptSample(
                f"spacing {' x '.join(f'{s:g}' for s in spacing)} mm; correct the header"
            )
        if not 0 <= start <= _MOST_BEFORE:
            raise CorruptSample(f"NIfTI: voxels begin after {start:.0f} bytes; correct the header")
        position = size + 4
        has_any = file.read(4)[:1] not in (b"", b"\0")
        while has_any and position + 16 <= start:
            word = file.read(4)
            length = struct.unpack(f"{order}i", word)[0] if len(word) == 4 else 0
            if length < 8 or position + length > start:
                raise CorruptSample(f"NIfTI: an extension of {length} bytes; correct the header")
            file.read(length - 4)
            position += length
