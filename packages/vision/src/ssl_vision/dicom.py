"""DICOM slices as images, when pydicom is installed; nothing but pixels leaves the file.

Grey slices are float32 in the units their slope and intercept give (Hounsfield, for CT), always,
so that every slice of a data set has one type; MONOCHROME1, where low is white, is turned round.
Colour is uint8 RGB. Of several frames the first is read.
"""

from __future__ import annotations

import importlib.util
import io

import numpy as np

from ssl_core.errors import CorruptSample

_TAGS = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored")


def read_slice(data: bytes, *, max_pixels: int) -> np.ndarray:
    """Pixels `[H, W]` float32 or `[H, W, 3]` uint8; raises `CorruptSample` with the reason."""
    if importlib.util.find_spec("pydicom") is None:
        raise CorruptSample("DICOM needs pydicom; pip install 'ssl-vision[dicom]'")
    import pydicom
    from pydicom.pixels import convert_color_space, pixel_array

    try:
        found = pydicom.dcmread(io.BytesIO(data), defer_size="1 KB", specific_tags=list(_TAGS))
        rows, columns = int(found.get("Rows", 0)), int(found.get("Columns", 0))
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise CorruptSample(f"DICOM header: {type(error).__name__}") from error
    if rows < 1 or columns < 1:
        raise CorruptSample("DICOM without an image")
    if rows * columns > max_pixels:
        raise CorruptSample(f"{columns} x {rows} pixels exceed the cap of {max_pixels}")
    try:
        whole = pydicom.dcmread(io.BytesIO(data))
        array = pixel_array(whole, index=0)
        kind = str(whole.PhotometricInterpretation)
        if array.ndim == 3:
            # Since version 3 pydicom gives YBR as RGB already; other spaces are converted here.
            if kind not in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"):
                array = convert_color_space(array, kind, "RGB")
            return array.astype(np.uint8)
        value = array.astype(np.float32)
        value = value * float(whole.get("RescaleSlope", 1) or 1)
        value += float(whole.get("RescaleIntercept", 0) or 0)
        return value.max() + value.min() - value if kind == "MONOCHROME1" else value
    except Exception as error:
        syntax = getattr(getattr(found, "file_meta", None), "TransferSyntaxUID", None)
        if getattr(syntax, "is_compressed", False):
            raise CorruptSample(
                f"DICOM compressed as {syntax.name} cannot be decoded here; install "
                "pylibjpeg[all] or write it uncompressed"
            ) from error
        raise CorruptSample(f"DICOM pixels: {type(error).__name__}") from error
