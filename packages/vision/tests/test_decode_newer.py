"""JPEG 2000, AVIF and HEIC: pixels, depths and bands, and refusal of what is damaged."""

from __future__ import annotations

import importlib.util
import io

import numpy as np
import pytest
import torch
from PIL import Image, features

from image_files import damage, encoded, hwc, smooth
from ssl_core.errors import CorruptSample
from ssl_core.recipe import Data
from ssl_vision import VISION, formats
from ssl_vision.decode import decode_image
from ssl_vision.formats import jpeg2000_header, sniff

imagecodecs = pytest.importorskip("imagecodecs")
pillow_heif = pytest.importorskip("pillow_heif")

KINDS = [name for name, has in (("JPEG2000", "jpg_2000"), ("AVIF", "avif")) if features.check(has)]
KINDS.append("HEIF")
SURE = {
    "JPEG2000": {},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "HEIF": {"quality": -1, "chroma": 444},
}


def pixels(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(smooth()).convert(mode)


def file(kind: str, mode: str = "RGB", **options) -> bytes:
    """As near to lossless as the format goes."""
    how = {**SURE[kind], **options}
    if kind != "HEIF":
        return encoded(pixels(mode), kind, **how)
    stream = io.BytesIO()  # not through Pillow, which is told of HEIC when a file is decoded
    pillow_heif.from_pillow(pixels(mode)).save(stream, **how)
    return stream.getvalue()


def deep(channels: int, codec: str = "jp2") -> tuple[np.ndarray, bytes]:
    """Twelve bits of noise, and the file."""
    noise = np.random.default_rng(channels).integers(0, 4096, (24, 37, channels), np.uint16)
    data = imagecodecs.jpeg2k_encode(noise, level=0, codecformat=codec, reversible=True)
    return noise, bytes(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_pixels_return(kind: str, mode: str) -> None:
    """To the bit, but for the turn through YCbCr; alpha is dropped, grey of videos is colour."""
    got = hwc(decode_image(file(kind, mode))).astype(int)
    expected = np.asarray(pixels(mode)).reshape(24, 37, -1)[..., :3]
    if kind != "JPEG2000":
        expected = np.broadcast_to(expected, (24, 37, 3)) if got.shape[2] == 3 else expected
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= (0 if kind == "JPEG2000" else 4)


@pytest.mark.parametrize("boxed", [True, False])
def test_jpeg_2000_with_and_without_boxes(boxed: bool) -> None:
    data = file("JPEG2000", no_jp2=not boxed)
    assert sniff(data) == "JPEG2000"
    assert jpeg2000_header(data) == formats.Header(37, 24, 3, 8)
    assert np.array_equal(hwc(decode_image(data)), np.asarray(pixels()))


@pytest.mark.parametrize("codec", ["jp2", "j2k"])
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_all_bands_and_bits_of_jpeg_2000_stay(channels: int, codec: str) -> None:
    noise, data = deep(channels, codec)
    assert jpeg2000_header(data).channels == channels
    image = decode_image(data)
    assert image.dtype == torch.uint16
    assert np.array_equal(hwc(image), noise)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = deep(5)
    heic = file("HEIF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CorruptSample, match=r"5 channels with 16 bits needs imagecodecs; pip"):
        decode_image(data)
    with pytest.raises(CorruptSample, match=r"HEIC needs pillow-heif; pip install"):
        decode_image(heic)
    decode_image(file("JPEG2000"))  # which Pillow reads


def test_brands_tell_avif_from_heic() -> None:
    """The major brand may be the general one; the compatible ones then tell."""
    for brand, kind in ((b"avif", "AVIF"), (b"heic", "HEIF")):
        box = b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00miaf" + brand
        assert sniff(box) == kind
    with pytest.raises(CorruptSample, match="not an image file"):
        sniff(b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isomavc1")  # a video
    with pytest.raises(CorruptSample, match="not an image file"):
        sniff(b"\x00\x00\x00\x14ftypmif1\x00\x00\x00\x00miafavif")  # beyond the box


@pytest.mark.skipif("AVIF" not in KINDS, reason="Pillow without AVIF")
def test_avif_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    got = hwc(decode_image(file("AVIF", exif=exif))).astype(int)
    assert np.abs(got - np.rot90(np.asarray(pixels()), -1)).max() <= 4


@pytest.mark.parametrize("kind", [*KINDS, "bands"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_truncated_files_are_corrupt(kind: str, share: float) -> None:
    data = deep(5)[1] if kind == "bands" else file(kind)
    with pytest.raises(CorruptSample):
        decode_image(data[: int(len(data) * share)])


def test_random_damage_raises_nothing_but_corrupt() -> None:
    rng = np.random.default_rng(5)
    for data in (*(file(kind) for kind in KINDS), deep(5)[1]):
        damage(data, rng)


def test_bombs_are_refused_from_the_header() -> None:
    for data in (file("JPEG2000"), deep(5)[1]):
        at = data.index(b"\xff\x4f\xff\x51")
        sides = (60_000).to_bytes(4, "big")
        wide = data[: at + 8] + sides + sides + data[at + 16 :]
        with pytest.raises(CorruptSample, match="60000 x 60000 pixels exceed the cap"):
            decode_image(wide)
    for kind in KINDS:
        with pytest.raises(CorruptSample, match="37 x 24 pixels exceed the cap of 100"):
            decode_image(file(kind), max_pixels=100)
    data = deep(5)[1]
    at = data.index(b"\xff\x4f\xff\x51")
    many = data[: at + 40] + (16_000).to_bytes(2, "big") + data[at + 42 :]
    with pytest.raises(CorruptSample, match="bytes of pixels are too many"):
        decode_image(many, max_pixels=24 * 37)


def test_inspect_tells_them(tmp_path) -> None:
    for number, kind in enumerate(KINDS):
        (tmp_path / f"{number}.heic").write_bytes(file(kind))
    (tmp_path / "bands.jp2").write_bytes(deep(13)[1])
    found = VISION.facts(VISION.open(Data(path=str(tmp_path))), range(1 + len(KINDS)))
    assert found["formats"] == {"JPEG2000": 2} | dict.fromkeys(KINDS[1:], 1)
    assert found["modes"]["13 x 16 bits"] == 1
    assert found["width"] == {"least": 37, "median": 37, "most": 37}
