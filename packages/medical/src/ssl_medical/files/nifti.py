"""NIfTI-1 and NIfTI-2, plain or gzipped, through nibabel."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_medical.files.volume import Volume, check_affine, check_size, check_values

FourD = Literal["refuse", "first", "channels"]


def read_nifti(path: str, *, max_voxels: int, four_d: FourD = "refuse") -> Volume:
    """A volume; `four_d` says what a fourth axis is: an error, time (its first), or channels.

    The header bounds what is decompressed: nibabel reads no byte beyond it.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
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
    affine = check_affine(image.affine)
    try:
        data = np.asanyarray(image.dataobj).reshape(sides)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CorruptSample(f"NIfTI voxels: {error}") from error
    if data.ndim == 4:
        data = data[..., :1] if four_d == "first" else data
        return Volume(check_values(np.moveaxis(data, 3, 0)), affine)
    return Volume(check_values(data[None]), affine)
