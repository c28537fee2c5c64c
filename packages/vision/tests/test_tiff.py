"""TIFF beyond Pillow: every band comes back as written, sizes are checked before decoding."""

import io
import struct

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ssl_core.errors import CorruptSample
from ssl_vision.decode import decode_image


def written(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def noise(*shape: int, dtype=np.uint16) -> np.ndarray:
    random = np.random.default_rng(1)
    if np.dtype(dtype).kind == "f":
        return random.normal(size=shape).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_satellite_bands(dtype, planar, compression) -> None:
    pixels = noise(20, 30, 7, dtype=dtype)
    stored = np.moveaxis(pixels, 2, 0) if planar == "separate" else pixels
    data = written(
        stored,
        photometric="minisblack",
        planarconfig=planar,
        compression=compression,
        extrasamples=[0] * 6,
    )
    got = decode_image(data)
    assert got.dtype == {"uint8": torch.uint8, "uint16": torch.uint16}.get(
        np.dtype(dtype).name, torch.float32
    )
    assert np.array_equal(got.permute(1, 2, 0).numpy(), pixels)


def test_deep_colour_and_its_alpha() -> None:
    pixels = noise(12, 9, 4)
    data = written(pixels, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), pixels[..., :3])
    kept = decode_image(data, keep_alpha=True)
    assert np.array_equal(kept.permute(1, 2, 0).numpy(), pixels)


def test_near_infrared_is_no_alpha() -> None:
    pixels = noise(12, 9, 4, dtype=np.uint8)
    data = written(pixels, photometric="rgb", extrasamples=[0])
    assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), pixels)


def test_channels_of_a_microscope_stack_and_its_first_frame() -> None:
    stack = noise(3, 5, 16, 18)  # time, channel, height, width
    data = written(stack, imagej=True, metadata={"axes": "TCYX"})
    assert np.array_equal(decode_image(data).numpy(), stack[0])


def test_more_bands_than_columns() -> None:
    pixels = noise(10, 4, 9)
    data = written(pixels, photometric="minisblack", planarconfig="contig", extrasamples=[0] * 8)
    assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), pixels)


def test_colour_and_grey_still_go_through_pillow() -> None:
    colour = noise(8, 7, 3, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colour).save(stream, "TIFF", compression="tiff_lzw")
    assert np.array_equal(decode_image(stream.getvalue()).permute(1, 2, 0).numpy(), colour)


def test_size_is_refused_from_the_header() -> None:
    data = bytearray(written(noise(4, 4, 5), photometric="minisblack", planarconfig="contig"))
    for tag in (256, 257):  # width, length
        at = data.find(struct.pack("<HH", tag, 4))
        at = at if at >= 0 else data.find(struct.pack("<HH", tag, 3))
        kind = struct.unpack_from("<H", data, at + 2)[0]
        struct.pack_into("<I" if kind == 4 else "<H", data, at + 8, 60_000)
    with pytest.raises(CorruptSample, match="max_pixels"):
        decode_image(bytes(data))


@pytest.mark.parametrize("cut", [9, 60, 200, 700])
def test_truncated_files_are_corrupt(cut: int) -> None:
    data = written(noise(20, 20, 5), photometric="minisblack", planarconfig="contig")
    with pytest.raises(CorruptSample):
        decode_image(data[:cut])
