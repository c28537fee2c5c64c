"""JPEG 2000 images that Pillow does not read whole: many bands, and deep colour.

Satellites' images come so, a band or several to a file. Pillow reads grey of any depth and 8-bit
colour; everything else goes through imagecodecs.
"""

from __future__ import annotations

import importlib.util

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_vision.formats import Header
from ssl_vision.tiff import BYTES_A_PIXEL


def bands(data: bytes, header: Header, max_pixels: int) -> np.ndarray:
    """Pixels `[H, W, C]`, every channel kept: which of four is alpha, such files seldom say.

    Raises `CorruptSample` when the file is damaged or too large, or imagecodecs is missing.
    """
    size = header.width * header.height * header.channels * -(-header.bits // 8)
    if size > BYTES_A_PIXEL * max_pixels:
        raise CorruptSample(f"JPEG2000: {size} bytes of pixels are too many")
    if importlib.util.find_spec("imagecodecs") is None:
        raise CorruptSample(
            f"JPEG2000 of {header.channels} channels with {header.bits} bits needs imagecodecs; "
            "pip install 'ssl-vision[tiff]'"
        )
    import imagecodecs

    try:
        array = np.asarray(imagecodecs.jpeg2k_decode(data))
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged field makes it stumble over
        raise CorruptSample(f"JPEG2000: {type(error).__name__}: {error}") from error
    if array.shape != (header.height, header.width, header.channels):
        raise CorruptSample(f"JPEG2000: channels of unequal size make {array.shape}")
    return array
