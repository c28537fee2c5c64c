"""Decoding of every format against known pixels, and refusal of what is damaged or hostile."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from image_files import damage, encoded, hwc
from image_files import smooth as pixels
from ssl_core.errors import CorruptSample
from ssl_vision.decode import decode_image
from ssl_vision.formats import jpeg_header, png_header, sniff

# --- formats ------------------------------------------------------------------------------------

LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
    ("PPM", {}),
]


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossless_formats_return_the_pixels(kind: str, options: dict, mode: str) -> None:
    image = Image.fromarray(pixels()).convert(mode)
    got = hwc(decode_image(encoded(image, kind, **options)))
    expected = np.asarray(image).reshape(24, 37, -1)
    if kind == "WEBP":  # knows no grey
        expected = np.broadcast_to(expected, got.shape)
    assert got.dtype == np.uint8
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_equals_pillow(options: dict) -> None:
    data = encoded(pixels(), "JPEG", quality=95, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)))
    difference = np.abs(hwc(decode_image(data)).astype(int) - expected)
    assert difference.max() <= 2  # two builds of the same library
    assert decode_image(encoded(Image.fromarray(pixels()).convert("L"), "JPEG")).shape[0] == 1


def test_cmyk_jpeg_is_rgb() -> None:
    image = Image.fromarray(pixels()).convert("CMYK")
    data = encoded(image, "JPEG", quality=100, subsampling=0)
    got = hwc(decode_image(data)).astype(int)
    assert got.shape == (24, 37, 3)
    assert np.abs(got - np.asarray(image.convert("RGB"))).mean() < 3


def test_palette_images_are_rgb() -> None:
    image = Image.fromarray(pixels()).quantize(40)
    expected = np.asarray(image.convert("RGB"))
    for kind in ("PNG", "GIF", "TIFF", "BMP"):
        assert np.array_equal(hwc(decode_image(encoded(image, kind))), expected), kind


def test_palette_with_transparency_drops_or_keeps_alpha() -> None:
    image = Image.fromarray(pixels()).quantize(40)
    data = encoded(image, "PNG", transparency=bytes(range(40)))
    assert decode_image(data).shape[0] == 3
    kept = decode_image(data, keep_alpha=True)
    index = np.asarray(image)
    assert np.array_equal(kept[3].numpy(), index)  # alpha i for palette entry i
    assert np.array_equal(hwc(kept[:3]), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_dropped_without_compositing(kind: str) -> None:
    colour = pixels()
    alpha = np.zeros((24, 37, 1), np.uint8)
    alpha[:, 20:] = 130
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(np.concatenate([colour, alpha], axis=2), kind, **options)
    assert np.array_equal(hwc(decode_image(data)), colour)
    assert np.array_equal(hwc(decode_image(data, keep_alpha=True))[..., 3:], alpha)


def test_grey_with_alpha() -> None:
    both = np.stack([pixels()[..., 0], pixels()[..., 1]], axis=2)
    data = encoded(_la(both), "PNG")
    assert np.array_equal(hwc(decode_image(data)), both[..., :1])
    assert np.array_equal(hwc(decode_image(data, keep_alpha=True)), both)


def _la(both: np.ndarray) -> Image.Image:
    return Image.merge("LA", [Image.fromarray(both[..., i]) for i in range(2)])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_stay(kind: str) -> None:
    deep = (np.arange(24 * 37).reshape(24, 37) * 70).astype(np.uint16)
    got = decode_image(encoded(deep, kind))
    assert got.dtype == torch.uint16
    assert np.array_equal(got[0].numpy(), deep)


def test_sixteen_bit_rgb_png() -> None:
    deep = (pixels().astype(np.uint16) * 257) + 1
    got = decode_image(png(deep))
    assert got.dtype == torch.uint16
    assert np.array_equal(hwc(got), deep)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_shallow_grey_png_spans_the_byte(bits: int) -> None:
    levels = 2**bits
    row = np.arange(16) % levels
    packed = np.packbits(
        ((row[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).ravel()
    )
    data = png_of(16, 1, bits, 0, b"\x00" + packed.tobytes())
    assert decode_image(data)[0, 0].tolist() == (row * 255 // (levels - 1)).tolist()


def test_float_tiff_and_bilevel() -> None:
    values = np.linspace(-3, 9, 24 * 37, dtype=np.float32).reshape(24, 37)
    got = decode_image(encoded(Image.fromarray(values), "TIFF"))
    assert got.dtype == torch.float32
    assert np.array_equal(got[0].numpy(), values)
    mask = Image.fromarray(pixels()[..., 0] > 90)
    assert np.unique(decode_image(encoded(mask, "TIFF")).numpy()).tolist() == [0, 255]


def test_animations_give_their_first_frame() -> None:
    frames = [Image.fromarray(np.full((8, 9, 3), v, np.uint8)) for v in (10, 200)]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("PNG", {})):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.unique(decode_image(data).numpy()).tolist() == [10], kind


# --- orientation --------------------------------------------------------------------------------

TURNED = {  # EXIF 2.3, tag 0x0112: what has to be done to show the stored rows upright
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", sorted(TURNED))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    data = encoded(pixels(), kind, exif=exif.tobytes(), **options.get(kind, {}))
    plain = encoded(pixels(), kind, **options.get(kind, {}))
    expected = TURNED[orientation](hwc(decode_image(plain)))
    assert np.array_equal(hwc(decode_image(data)), expected)


def test_nonsense_exif_leaves_the_image() -> None:
    for nonsense in (b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif"):
        for kind in ("JPEG", "WEBP", "PNG"):
            data = encoded(pixels(), kind, exif=nonsense)
            assert decode_image(data).shape == (3, 24, 37)


# --- arrays -------------------------------------------------------------------------------------


def test_arrays_and_npy() -> None:
    many = np.arange(6 * 10 * 12, dtype=np.uint16).reshape(6, 10, 12)
    for array in (many, np.ascontiguousarray(many.transpose(1, 2, 0))):
        stream = io.BytesIO()
        np.save(stream, array)
        for source in (array, stream.getvalue()):
            got = decode_image(source)
            assert got.dtype == torch.uint16
            assert np.array_equal(got.numpy(), many)
    assert torch.equal(decode_image(torch.from_numpy(many)), torch.from_numpy(many))
    assert decode_image(np.zeros((5, 7), bool)).shape == (1, 5, 7)
    assert decode_image(np.zeros((5, 7), np.float64)).dtype == torch.float32
    assert decode_image(np.array([[1, 70000]])).dtype == torch.float32
    assert decode_image(np.array([[1, 7000]], ">i4")).dtype == torch.uint16
    assert decode_image(Image.fromarray(pixels())).shape == (3, 24, 37)
    alpha = np.zeros((4, 5, 4), np.uint8)
    assert decode_image(alpha).shape == (4, 4, 5)  # an array's channels mean what its owner says


def test_bad_arrays_are_corrupt() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}]), allow_pickle=True)
    for source in (
        stream.getvalue(),
        np.zeros((2, 3, 4, 5)),
        np.zeros((0, 4)),
        np.array([["a"]]),
        np.array([[np.nan]]),
        b"\x93NUMPY\x01\x00\x10\x00broken header ..",
        object(),
    ):
        with pytest.raises(CorruptSample):
            decode_image(source)


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_truncated_files_are_corrupt(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encoded(noise, kind)
    with pytest.raises(CorruptSample):
        decode_image(data[: int(len(data) * share)])


def test_jpeg_cut_by_two_bytes_is_corrupt() -> None:
    for options in ({}, {"progressive": True}):
        with pytest.raises(CorruptSample, match="truncated"):
            decode_image(encoded(pixels(), "JPEG", **options)[:-2])


def test_damaged_png_data_is_corrupt() -> None:
    data = bytearray(encoded(pixels(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(CorruptSample):
        decode_image(bytes(data))


def test_text_is_no_image(tmp_path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("dear diary")
    with pytest.raises(CorruptSample, match=r"not an image file.*dear"):
        decode_image(path)
    with pytest.raises(CorruptSample, match="empty"):
        decode_image(b"")


@pytest.mark.parametrize("size", range(1, 60))
def test_first_bytes_alone_never_break_the_parser(size: int) -> None:
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"):
        with pytest.raises(CorruptSample):
            decode_image(encoded(pixels(), kind)[:size])


def test_random_damage_raises_nothing_but_corrupt() -> None:
    rng = np.random.default_rng(5)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"):
        damage(encoded(pixels(), kind), rng)


# --- bombs --------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png(deep: np.ndarray) -> bytes:
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in deep)
    return png_of(deep.shape[1], deep.shape[0], 16, 2, rows)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b"," + b"\x00" * 40


def bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def jpeg(width: int, height: int, bits: int = 8) -> bytes:
    data = bytearray(encoded(pixels(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 4 : at + 9] = struct.pack(">BHH", bits, height, width)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        png_of(30_000, 30_000, 8, 2, b"")[:33],
        png_of(30_000, 30_000, 8, 2, b""),
        png_of(30_000, 30_000, 8, 3, b""),
        png_of(2**31 - 1, 2**31 - 1, 8, 2, b""),
        gif(65_535, 65_535),
        bmp(30_000, 30_000),
        jpeg(65_000, 65_000),
        b"P6 60000 60000 255\n" + b"\x00" * 99,
    ],
    ids=["png header", "png", "palette", "huge png", "gif", "bmp", "jpeg", "ppm"],
)
def test_bombs_are_refused_from_the_header(data: bytes) -> None:
    with pytest.raises(CorruptSample, match="pixels exceed the cap of 64000000"):
        decode_image(data)


def test_tiff_bomb() -> None:
    entries = ((256, 4, 60_000), (257, 4, 60_000), (258, 3, 8), (259, 3, 1), (262, 3, 1))
    entries += ((273, 4, 8), (277, 3, 1), (278, 4, 60_000), (279, 4, 99))
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    data = b"II*\x00" + struct.pack("<IH", 8, len(entries)) + body + b"\x00" * 8
    with pytest.raises(CorruptSample, match="pixels exceed"):
        decode_image(data)


def test_caps_are_arguments(tmp_path) -> None:
    data = encoded(pixels(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert decode_image(path, max_pixels=24 * 37).shape == (3, 24, 37)
    with pytest.raises(CorruptSample, match="max_pixels"):
        decode_image(path, max_pixels=24 * 37 - 1)
    for source in (path, data):
        with pytest.raises(CorruptSample, match="max_bytes"):
            decode_image(source, max_bytes=len(data) - 1)
    with pytest.raises(CorruptSample, match="12 bits"):
        decode_image(jpeg(37, 24, bits=12))


def test_headers() -> None:
    header = jpeg_header(encoded(pixels(), "JPEG"))
    assert (header.width, header.height, header.channels, header.bits) == (37, 24, 3, 8)
    header = png_header(encoded(Image.fromarray(pixels()).quantize(9), "PNG"))
    assert (header.width, header.height, header.indexed) == (37, 24, True)
    assert sniff(encoded(pixels(), "WEBP")) == "WEBP"


def test_pillow_warnings_do_not_leak_and_filters_do_not_grow() -> None:
    """A palette PNG with transparency bytes and a TIFF with a bad tag both make Pillow warn."""
    image = Image.fromarray(pixels()).quantize(40)
    data = encoded(image, "PNG", transparency=bytes(40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_image(data)
        before = len(warnings.filters)
        for _ in range(5):
            decode_image(data)
        assert len(warnings.filters) == before


def test_pixels_are_stored_channels_last() -> None:
    for kind in ("JPEG", "PNG", "BMP"):
        assert decode_image(encoded(pixels(), kind)).permute(1, 2, 0).is_contiguous()
