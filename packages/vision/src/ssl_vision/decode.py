"""Bytes to one uint8, uint16 or float32 tensor `[C, H, W]`, whatever the file format.

JPEG goes through torchvision's decoder, which is faster than Pillow; every other format, and CMYK,
through Pillow; both release the interpreter lock. Pixels are stored channels last (`[H, W, C]` in
memory, seen as `[C, H, W]`), the layout torch's resize kernel is fastest on.

Rules: the size is checked against the header before anything is decoded; EXIF orientation is
applied; alpha is dropped without compositing unless `keep_alpha`; palettes become RGB; CMYK and
other colour spaces become RGB; an animation gives its first frame; more than 8 bits stay, but for
AVIF and HEIC, of which Pillow gives 8.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.data.limits import read_capped
from ssl_core.errors import CorruptSample
from ssl_vision import formats, jpeg2000, tiff
from ssl_vision.dicom import read_slice

MAX_PIXELS = 64_000_000
"""Default cap on height x width: above any camera, far below what exhausts memory."""
MAX_BYTES = 256 * 1024**2
"""Default cap on the encoded size."""
_UNCHANGED = 0
"""torchvision's `ImageReadMode.UNCHANGED`: channels and depth as stored."""


def decode_image(
    source: Any,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    keep_alpha: bool = False,
) -> Tensor:
    """An image as `[C, H, W]`: uint8, uint16 (9 to 16 bits stored) or float32.

    `source` is a path, encoded bytes, a NumPy array (`[H, W]`, `[H, W, C]` or `[C, H, W]`: the
    smaller of the outer axes holds the channels, the last on a tie), a tensor (`[H, W]` or
    `[C, H, W]`) or a Pillow image. Raises `CorruptSample` with the reason when it is no image,
    is truncated, or exceeds `max_pixels` (height x width) or `max_bytes`; `OSError` when a file
    cannot be read.
    """
    if isinstance(source, (str, Path)):
        source = _read(source, max_bytes)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        if len(data) > max_bytes:
            raise CorruptSample(f"{len(data)} bytes exceed the cap of {max_bytes} (max_bytes)")
        return _decode_bytes(data, max_pixels, keep_alpha)
    if isinstance(source, Tensor):
        return _from_array(source.numpy(force=True), max_pixels, channels_first=True)
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if hasattr(source, "getbands"):
        return _from_pillow(source, max_pixels, keep_alpha)
    raise CorruptSample(f"cannot read an image from {type(source).__name__}")


def _read(path: str | Path, max_bytes: int) -> bytes:
    data = read_capped(path, max_bytes)
    if len(data) > max_bytes:
        raise CorruptSample(f"file exceeds the cap of {max_bytes} bytes (max_bytes)")
    return data


def _decode_bytes(data: bytes, max_pixels: int, keep_alpha: bool) -> Tensor:
    kind = formats.sniff(data)
    if kind == "JPEG":
        header = formats.jpeg_header(data)
        _check_size(header.width, header.height, max_pixels)
        if header.bits != 8:
            raise CorruptSample(f"JPEG: {header.bits} bits per component are not supported")
        decoder = fast_decoder(kind)
        if decoder is not None and header.channels in (1, 3):
            return _by_torchvision(kind, decoder, data)
    elif kind == "PNG":
        header = formats.png_header(data)
        _check_size(header.width, header.height, max_pixels)
        if header.bits == 16 and header.channels > 1:
            return _deep_png(data, max_pixels, keep_alpha)
    elif kind == "JPEG2000":
        header = formats.jpeg2000_header(data)
        _check_size(header.width, header.height, max_pixels)
        if header.channels > 4 or (header.bits > 8 and header.channels > 1):
            return _from_array(
                jpeg2000.bands(data, header, max_pixels), max_pixels, channels_first=False
            )
    elif kind == "TIFF":
        found = tiff.bands(data, max_pixels)
        if found is not None:
            array, alpha = found
            kept = array[..., :-1] if alpha and not keep_alpha else array
            return _from_array(kept, max_pixels, channels_first=False)
    elif kind == "NPY":
        return _from_array(_load_npy(data, max_pixels), max_pixels)
    elif kind == "DICOM":
        return _from_array(
            read_slice(data, max_pixels=max_pixels), max_pixels, channels_first=False
        )
    return _from_file_by_pillow(kind, data, max_pixels, keep_alpha)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise CorruptSample(f"empty image of {width} x {height} pixels")
    if width * height > max_pixels:
        raise CorruptSample(
            f"{width} x {height} pixels exceed the cap of {max_pixels} (max_pixels)"
        )


@functools.cache
def fast_decoder(kind: str) -> Callable[..., Tensor] | None:
    """Torchvision's decoder of "JPEG" or "PNG", or None where this build has none.

    The operator and not its Python wrapper: torchvision announced from 0.29 on that its decoders
    will go, and warns at every call. Once they are gone, Pillow reads everything.
    """
    import torchvision.io  # noqa: F401 - registers the operators

    return getattr(torch.ops.image, f"decode_{kind.lower()}", None)


def _by_torchvision(kind: str, decoder: Callable[..., Tensor], data: bytes) -> Tensor:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    try:
        image = decoder(encoded, _UNCHANGED, True)
    except RuntimeError as error:
        # The message's head is a source location; what follows the last comma is the reason.
        reason = str(error).splitlines()[0].rpartition(".cpp:")[2].partition(", ")[2]
        raise CorruptSample(f"{kind}: {reason or error}") from error
    return _channels_last(image)


def _deep_png(data: bytes, max_pixels: int, keep_alpha: bool) -> Tensor:
    """A PNG with 16 bits and several channels, of which Pillow keeps 8 bits.

    Torchvision's PNG decoder ends the whole process on damaged data (it does not survive libpng's
    errors), so Pillow, which checks the checksums and the compressed stream, reads it first.
    """
    shallow = _from_file_by_pillow("PNG", data, max_pixels, keep_alpha)
    decoder = fast_decoder("PNG")
    if decoder is None:
        return shallow
    return _without_alpha(_by_torchvision("PNG", decoder, data), keep_alpha)


def _channels_last(image: Tensor) -> Tensor:
    """The same `[C, H, W]` values, stored `[H, W, C]`."""
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _without_alpha(image: Tensor, keep_alpha: bool) -> Tensor:
    if image.shape[0] in (2, 4) and not keep_alpha:
        return _channels_last(image[:-1])
    return image


# --- arrays ------------------------------------------------------------------------------------


def _load_npy(data: bytes, max_pixels: int) -> np.ndarray:
    """A `.npy` file whose header is checked first; object arrays (pickles) are refused."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        reader = "read_array_header_1_0" if version[0] == 1 else "read_array_header_2_0"
        shape, _, dtype = getattr(np.lib.format, reader)(stream)
        if dtype.hasobject:
            raise CorruptSample("npy: object arrays are not read")
        if len(shape) not in (2, 3):
            raise CorruptSample(f"npy: shape {shape} is not an image")
        sides = sorted(shape)[-2:]
        _check_size(sides[0], sides[1], max_pixels)
        stream.seek(0)
        return np.load(stream, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CorruptSample(f"npy: {error}") from error


def _from_array(
    array: np.ndarray, max_pixels: int, *, channels_first: bool | None = None
) -> Tensor:
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim != 3:
        raise CorruptSample(f"array of shape {array.shape} is not an image")
    elif channels_first or (channels_first is None and array.shape[0] < array.shape[2]):
        array = np.moveaxis(array, 0, 2)
    _check_size(array.shape[1], array.shape[0], max_pixels)
    image = torch.from_numpy(np.ascontiguousarray(_supported(array))).permute(2, 0, 1)
    if image.is_floating_point() and not torch.isfinite(image).all():
        raise CorruptSample("array holds NaN or infinity")
    return image


def _supported(array: np.ndarray) -> np.ndarray:
    """The nearest of uint8, uint16 and float32 that holds every value."""
    if array.dtype in (np.uint8, np.uint16, np.float32):
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype.kind in "iuf":
        if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() < 65536:
            return array.astype(np.uint16)
        return array.astype(np.float32)
    raise CorruptSample(f"array of type {array.dtype} is not an image")


# --- Pillow ------------------------------------------------------------------------------------


def _from_file_by_pillow(kind: str, data: bytes, max_pixels: int, keep_alpha: bool) -> Tensor:
    try:
        return _from_pillow(opened(kind, data), max_pixels, keep_alpha)
    except (CorruptSample, MemoryError):
        raise
    except Exception as error:
        # Pillow's parsers raise whatever a damaged field makes them stumble over.
        raise CorruptSample(f"{kind}: {type(error).__name__}: {error}") from error


def opened(kind: str, data: bytes) -> Any:
    """A file of this kind as a Pillow image, of which only the header is read."""
    from PIL import Image

    Image.init()
    _quiet_pillow()
    if kind == "HEIF":
        if importlib.util.find_spec("pillow_heif") is None:
            raise CorruptSample("HEIC needs pillow-heif; pip install 'ssl-vision[heic]'")
        import pillow_heif

        pillow_heif.register_heif_opener()
    # The plugin itself, not `Image.open`, whose own size check warns through global state.
    return Image.OPEN[kind][0](io.BytesIO(data), "")


def _quiet_pillow() -> None:
    """Pillow warns about odd metadata; the pixels are what is wanted, so that is ignored.

    A plain filter, put in again at every call, and not `catch_warnings`, which swaps the list of
    filters of the whole process and is not safe in threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\b")


def _from_pillow(image: Any, max_pixels: int, keep_alpha: bool) -> Tensor:
    _check_size(*image.size, max_pixels)
    image = _oriented(image)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    elif image.mode in ("P", "PA"):
        alpha = image.mode == "PA" or "transparency" in image.info
        image = image.convert("RGBA" if alpha and keep_alpha else "RGB")
    elif image.mode in ("CMYK", "YCbCr", "HSV", "LAB", "RGBX"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    array = np.array(image)
    if array.ndim == 2:
        array = array[:, :, None]
    out = torch.from_numpy(np.ascontiguousarray(_supported(array))).permute(2, 0, 1)
    return _without_alpha(out, keep_alpha)


def _oriented(image: Any) -> Any:
    """EXIF orientation applied; metadata that cannot be parsed leaves the image as stored."""
    from PIL import ImageOps

    image.load()
    try:
        orientation = image.getexif().get(0x0112, 1)
    except (SyntaxError, ValueError, OSError, KeyError, TypeError, struct.error):
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image
