"""MetaImage (.mha): a text header and its voxels, raw or zlib, in one file.

The format is ITK's (https://itk.org/Wiki/ITK/MetaIO/Documentation); reading it here keeps ITK out
of the installation and bounds what a compressed file may expand to.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

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

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_HEADER_BYTES = 1 << 16


def read_meta_image(path: str, *, max_voxels: int, sparse: bool = False) -> Volume:
    """A volume of three axes with one or more channels; positions are LPS in the file."""
    with open(path, "rb") as file:
        header, start = _header(file.read(_HEADER_BYTES))
        try:
            sides = [int(word) for word in header["DimSize"].split()]
            channels = int(header.get("ElementNumberOfChannels", 1))
            kind = np.dtype(_TYPES[header["ElementType"].upper()])
        except (KeyError, ValueError) as error:
            raise CorruptSample(f"MHA: header lacks or garbles {error}") from error
        if len(sides) != 3 or channels < 1:
            raise CorruptSample(f"MHA with {len(sides)} axes and {channels} channels is no volume")
        check_size([*sides, channels], max_voxels)
        affine = _affine(header)
        if header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "F"))[0] in "Tt":
            kind = kind.newbyteorder(">")
        expected = math.prod(sides) * channels * kind.itemsize
        if not sparse:
            check_expansion(os.path.getsize(path), expected)
        if os.path.getsize(path) - start > expected + _HEADER_BYTES:
            raise CorruptSample("MHA holds more bytes than its header says")
        file.seek(start)
        data = file.read()
    if header.get("CompressedData", "F")[:1] in ("T", "t"):
        data = inflate(data, expected)
    if len(data) < expected:
        raise CorruptSample(f"MHA ends after {len(data)} of {expected} bytes")
    voxels = np.frombuffer(data[:expected], kind).reshape([channels, *sides], order="F")
    return Volume(check_values(voxels), affine)


def _header(data: bytes) -> tuple[Mapping[str, str], int]:
    """Names and values up to `ElementDataFile`, and where the voxels begin."""
    found: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in found:
        end = data.find(b"\n", position)
        if end < 0:
            raise CorruptSample("MHA: the header does not end; is this a MetaImage?")
        name, equals, value = data[position:end].decode("latin-1").partition("=")
        if not equals:
            raise CorruptSample("MHA: a line of the header is no `name = value`")
        found[name.strip()] = value.strip()
        position = end + 1
    if found["ElementDataFile"] != "LOCAL":
        raise CorruptSample("MHA with voxels in another file; join them into one .mha")
    return found, position


def _affine(header: Mapping[str, str]) -> np.ndarray:
    """Voxels to RAS; `TransformMatrix` holds the direction of each axis in turn, in LPS."""
    try:
        spacing = [float(word) for word in header.get("ElementSpacing", "1 1 1").split()]
        words = header.get("TransformMatrix", "1 0 0 0 1 0 0 0 1").split()
        origin = header.get("Offset", header.get("Position", "0 0 0")).split()
        affine = np.eye(4)
        directions = np.array(words, np.float64).reshape(3, 3).T
        affine[:3, :3] = directions * np.array(spacing)[None]
        affine[:3, 3] = np.array(origin, np.float64)
    except ValueError as error:
        raise CorruptSample(f"MHA: {error}") from error
    return check_affine(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
