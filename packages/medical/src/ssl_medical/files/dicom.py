"""A DICOM series: slices put in order by their position, with rescale slope and intercept.

Only pixels, geometry and modality leave this file; names, dates and identifiers stay in it.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_medical.files.volume import Volume, check_affine, check_size, check_values

_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
_KEPT = (*_GEOMETRY, "SeriesInstanceUID", "Modality", "NumberOfFrames", "SamplesPerPixel")
_TOLERANCE = 0.02
"""Share of the slice distance by which distances may differ."""
_MAX_FILES = 8192
_MOST_INFLATED = 1 << 26
"""Bytes of one slice's file."""
_META_START = 128 + 4 + 12
"""Preamble, magic word and the length of the file's meta information come before its rest."""


def read_dicom(path: str, *, max_voxels: int) -> Volume:
    """The one series in a folder (or a single-slice file); `CorruptSample` names what is wrong."""
    files = series_files(path)
    headers = sorted((_header(file), file) for file in files)
    if len({header.series for header, _ in headers}) > 1:
        raise CorruptSample("several series in one folder; give each its own folder")
    first = headers[0][0]
    for header, _ in headers[1:]:
        if header.sides != first.sides or not np.allclose(header.spacing, first.spacing, rtol=1e-3):
            raise CorruptSample("slices differ in size or pixel spacing")
        if not np.allclose(header.axes, first.axes, atol=1e-3):
            raise CorruptSample("slices differ in orientation (a localiser among them?)")
    check_size((*first.sides, len(headers)), max_voxels)
    step = _step([header for header, _ in headers])
    data = np.stack([_pixels(file) for _, file in headers], axis=-1)  # [rows, columns, slices]
    affine = np.eye(4)
    affine[:3, 0] = first.axes[1] * first.spacing[0]  # along rows: index of the row
    affine[:3, 1] = first.axes[0] * first.spacing[1]
    affine[:3, 2] = first.normal * step
    affine[:3, 3] = first.position
    affine = check_affine(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)  # DICOM's LPS to RAS
    return Volume(check_values(data[None]), affine, first.modality)


def series_files(path: str) -> list[str]:
    """The files of a series: a single file, or all in a folder that end in .dcm or in nothing."""
    if os.path.isfile(path):
        return [path]
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise CorruptSample(f"cannot be read: {error.strerror}") from error
    files = [
        os.path.join(path, name)
        for name in names
        if not name.startswith(".") and name.upper() != "DICOMDIR"
        and os.path.splitext(name)[1].lower() in (".dcm", ".ima", "")
    ]  # fmt: skip
    files = [file for file in files if os.path.isfile(file)]
    if not files:
        raise CorruptSample("no DICOM file in this folder")
    if len(files) > _MAX_FILES:
        raise CorruptSample(f"{len(files)} files are too many for one series")
    return files


def patient_group(path: str) -> str:
    """A word that is equal for scans of one patient and says nothing about who that is."""
    import pydicom

    for file in series_files(path)[:1]:
        try:
            _check_inflated(file)
            tags = ["PatientID", "StudyInstanceUID"]
            found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        except Exception:
            return ""
        word = str(found.get("PatientID", "") or found.get("StudyInstanceUID", ""))
        return hashlib.blake2b(word.encode(), digest_size=8).hexdigest() if word else ""
    return ""


class _Header:
    """Geometry of one slice; sorts by position along the normal."""

    def __init__(self, found: Any) -> None:
        missing = [name for name in _GEOMETRY if found.get(name) is None]
        if missing:
            raise CorruptSample(f"DICOM without {', '.join(missing)} is no slice of a volume")
        if int(found.get("NumberOfFrames", 1) or 1) > 1:
            raise CorruptSample("multi-frame DICOM; split it into one file a slice")
        if int(found.get("SamplesPerPixel", 1) or 1) != 1:
            raise CorruptSample("colour DICOM is no scan")
        self.series = str(found.get("SeriesInstanceUID", ""))
        self.modality = str(found.get("Modality", ""))
        self.sides = (int(found.Rows), int(found.Columns))
        self.spacing = np.array([float(x) for x in found.PixelSpacing])  # rows, then columns
        self.position = np.array([float(x) for x in found.ImagePositionPatient])
        self.axes = np.array([float(x) for x in found.ImageOrientationPatient]).reshape(2, 3)
        self.normal = np.cross(self.axes[0], self.axes[1])
        self.depth = float(self.position @ self.normal)

    def __lt__(self, other: _Header) -> bool:
        return self.depth < other.depth


def _header(file: str) -> _Header:
    import pydicom

    try:
        _check_inflated(file)
        found = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_KEPT))
        return _Header(found)
    except CorruptSample:
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise CorruptSample(f"DICOM header: {type(error).__name__}") from error


def _check_inflated(file: str) -> None:
    """Refuses a deflated file that holds more than a slice can; pydicom inflates it at once."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    meta = read_file_meta_info(file)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    with open(file, "rb") as stream:
        stream.seek(_META_START + int(meta.FileMetaInformationGroupLength))
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        machine.decompress(stream.read(), _MOST_INFLATED)
    if machine.unconsumed_tail:
        raise CorruptSample(f"deflated DICOM expands beyond {_MOST_INFLATED} bytes a slice")


def _step(headers: Sequence[_Header]) -> float:
    """Distance between slices; refuses gaps, doubles and uneven distances."""
    if len(headers) == 1:
        return 1.0
    gaps = np.diff([header.depth for header in headers])
    usual = float(np.median(gaps))
    if usual <= 0 or gaps.min() <= _TOLERANCE * usual:
        raise CorruptSample("two slices lie at the same position")
    off = np.abs(gaps - usual) > _TOLERANCE * usual
    if off.any():
        times = gaps[off] / usual
        if np.allclose(times, times.round(), atol=2 * _TOLERANCE):
            count = int((times.round() - 1).sum())
            words = "1 slice is" if count == 1 else f"{count} slices are"
            first = int(np.flatnonzero(off)[0]) + 1
            raise CorruptSample(f"{words} missing, the first after slice {first} of {len(headers)}")
        raise CorruptSample(f"slice distances vary from {gaps.min():g} to {gaps.max():g} mm")
    return usual


def _pixels(file: str) -> np.ndarray:
    """Intensities float32 `[rows, columns]` after slope and intercept."""
    import pydicom

    try:
        found = pydicom.dcmread(file)
        slope, intercept = found.get("RescaleSlope", 1), found.get("RescaleIntercept", 0)
        return found.pixel_array.astype(np.float32) * float(slope) + float(intercept)
    except Exception as error:
        syntax = getattr(getattr(locals().get("found"), "file_meta", None), "TransferSyntaxUID", "")
        name = getattr(syntax, "name", "unknown")
        if getattr(syntax, "is_compressed", False):
            raise CorruptSample(
                f"DICOM compressed as {name} cannot be decoded here; install "
                "pylibjpeg[all] or write it uncompressed"
            ) from error
        raise CorruptSample(f"DICOM pixels: {type(error).__name__}") from error
