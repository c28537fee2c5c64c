"""TIFF files that Pillow does not read whole: many bands, deep colour, band stacks, GeoTIFF.

Satellite and microscope images come as TIFF with any number of samples, as integers or floats,
interleaved or in planes. Pillow reads grey and 8-bit colour; everything else goes through
tifffile. LZW, JPEG and other packings besides deflate need the package imagecodecs as well.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample

BYTES_A_PIXEL = 64
"""Cap on a pixel's bytes over all bands, times the cap on pixels: 16 float bands of the largest."""


def bands(data: bytes, max_pixels: int) -> tuple[np.ndarray, bool] | None:
    """Pixels `[H, W, C]` and whether the last channel is alpha; None where Pillow reads the file.

    Of a stack of images the first is read; bands kept as planes or as a channel axis become
    channels. Raises `CorruptSample` when the file is damaged, too large or packed in a way that
    is not installed.
    """
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            if not file.pages or not file.series:
                raise CorruptSample("TIFF: holds no image")
            page: Any = file.pages[0]
            series: Any = file.series[0]
            channel = next((axis for axis in "SC" if axis in series.axes), None)
            if not _beyond_pillow(page, series, channel):
                return None
            _check(series, max_pixels)
            array = _channels_last(series.asarray(), series.axes, channel)
            return array, channel == "S" and _last_is_alpha(page)
    except (CorruptSample, MemoryError):
        raise
    except Exception as error:
        hint = "; install imagecodecs" if "imagecodecs" in str(error) else ""
        raise CorruptSample(f"TIFF: {type(error).__name__}: {error}{hint}") from error


def _beyond_pillow(page: Any, series: Any, channel: str | None) -> bool:
    if channel == "C":
        return True
    samples, bits = page.samplesperpixel, page.bitspersample
    extra = [int(sample) for sample in page.extrasamples]
    if samples == 1:
        return False
    return bits != 8 or samples > 4 or 0 in extra or len(extra) > 1


def _check(series: Any, max_pixels: int) -> None:
    """Sizes by the header, before anything is decoded."""
    sides = dict(zip(series.axes, series.shape, strict=True))
    if "Y" not in sides or "X" not in sides:
        raise CorruptSample(f"TIFF: axes {series.axes} are not an image")
    height, width = sides["Y"], sides["X"]
    if height * width > max_pixels:
        raise CorruptSample(
            f"{width} x {height} pixels exceed the cap of {max_pixels} (max_pixels)"
        )
    if series.nbytes > BYTES_A_PIXEL * max_pixels:
        raise CorruptSample(f"TIFF: {series.nbytes} bytes of pixels are too many")


def _channels_last(array: np.ndarray, axes: str, channel: str | None) -> np.ndarray:
    """`[H, W, C]`; the first entry of every other axis (time, depth, page)."""
    for axis in [axis for axis in axes if axis not in ("Y", "X", channel)]:
        array = array.take(0, axis=axes.index(axis))
        axes = axes.replace(axis, "", 1)
    if channel is None:
        return array[:, :, None]
    return np.transpose(array, [axes.index(axis) for axis in ("Y", "X", channel)])


def _last_is_alpha(page: Any) -> bool:
    """1 and 2 in ExtraSamples are associated and unassociated alpha (TIFF 6.0, section 18)."""
    extra = [int(sample) for sample in page.extrasamples]
    return bool(extra) and extra[-1] in (1, 2)
