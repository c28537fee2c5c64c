"""`read_volume`: what a path is decides which reader takes it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_medical.files.dicom import read_dicom
from ssl_medical.files.meta_image import read_meta_image
from ssl_medical.files.nifti import FourD, read_nifti
from ssl_medical.files.nrrd import read_nrrd
from ssl_medical.files.volume import MAX_VOXELS, Volume, check_size, check_values

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".dcm", ".npy")


def read_volume(
    payload: Any,
    *,
    max_voxels: int = MAX_VOXELS,
    four_d: FourD = "refuse",
    sparse: bool = False,
) -> Volume:
    """A scan from a file, a folder of DICOM slices, or an array `[X, Y, Z]` or `[C, X, Y, Z]`.

    Arrays have a spacing of 1 mm. `sparse` is for segmentations, which may be compressed more than
    any scan. Raises `CorruptSample` with the reason, never a library's error.
    """
    if isinstance(payload, np.ndarray):
        return _array(payload, max_voxels)
    if not isinstance(payload, (str, os.PathLike)):
        raise CorruptSample(f"neither a file nor an array, but {type(payload).__name__}")
    path = os.fspath(payload)
    name = path.lower()
    try:
        if os.path.isdir(path) or name.endswith((".dcm", ".ima")):
            return read_dicom(path, max_voxels=max_voxels)
        if not os.path.isfile(path):
            raise CorruptSample("does not exist")
        if name.endswith((".nii", ".nii.gz")):
            return read_nifti(path, max_voxels=max_voxels, four_d=four_d, sparse=sparse)
        if name.endswith(".nrrd"):
            return read_nrrd(path, max_voxels=max_voxels, sparse=sparse)
        if name.endswith(".mha"):
            return read_meta_image(path, max_voxels=max_voxels, sparse=sparse)
        if name.endswith(".npy"):
            return _array(np.load(path, mmap_mode="r", allow_pickle=False), max_voxels)
    except (OSError, ValueError) as error:
        raise CorruptSample(f"cannot be read: {error}") from error
    raise CorruptSample(f"no scan by its name; readable are {', '.join(SUFFIXES)}")


def _array(data: np.ndarray, max_voxels: int) -> Volume:
    if data.ndim not in (3, 4):
        raise CorruptSample(f"an array of {data.ndim} axes is no volume")
    check_size(data.shape, max_voxels)
    return Volume(check_values(data if data.ndim == 4 else data[None]), np.eye(4))
