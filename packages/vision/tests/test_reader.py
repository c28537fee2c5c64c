"""Reading: one channel count and value range for mixed files, and facts measured from them."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_core.batch import Record
from ssl_core.data import ArraySource
from ssl_core.errors import CorruptSample, UserError
from ssl_vision.decode import decode_image
from ssl_vision.measure import measure, view_size
from ssl_vision.reader import ImageReader, ReaderOptions, as_dtype, stored, with_channels


def record(payload) -> Record:
    return Record("k", payload)


def photo(seed: int, height: int = 20, width: int = 26, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array.squeeze()).save(stream, "PNG")
    return stream.getvalue()


def reader(payloads: list, **options) -> ImageReader:
    return ImageReader.fit(ArraySource(payloads), ReaderOptions.of(options))


def test_facts_are_those_of_the_pixels() -> None:
    images = [photo(i) for i in range(9)]
    spec = reader([png(image) for image in images]).spec
    values = np.stack(images).reshape(-1, 3) / 255
    assert spec["channels"] == 3
    assert (spec["height"], spec["width"], spec["size"]) == (20, 26, 20)
    assert (spec["dtype"], spec["range"]) == ("uint8", [0.0, 255.0])
    assert np.allclose(spec["mean"], values.mean(0), atol=1e-6)
    assert np.allclose(spec["std"], values.std(0), atol=1e-6)
    json.dumps(dict(spec))


def test_the_majority_decides_and_unreadable_files_do_not() -> None:
    colour = [png(photo(i)) for i in range(6)]
    grey = [png(photo(i, channels=1)) for i in range(5)]
    mixed = reader([b"text", *colour, *grey, b""])
    assert mixed.spec["channels"] == 3
    decoded = mixed.decode(record(grey[0]))
    assert decoded.shape == (3, 20, 26)
    assert torch.equal(decoded[0], decoded[2])
    other = reader([*colour[:2], *grey])
    assert other.spec["channels"] == 1
    luma = np.asarray(Image.open(io.BytesIO(colour[0])).convert("L")).astype(int)
    assert np.abs(other.decode(record(colour[0]))[0].numpy() - luma).max() <= 1


def test_nothing_readable_is_a_user_error(tmp_path) -> None:
    with pytest.raises(UserError, match=r"none of 2 records is a readable image .*not an image"):
        reader([b"text", b"more text"])
    with pytest.raises(UserError, match="No such file"):
        reader([tmp_path / "gone.png"])


def test_channels_that_cannot_be_matched_are_corrupt() -> None:
    five = torch.zeros(5, 4, 4, dtype=torch.uint8)
    with pytest.raises(CorruptSample, match="5 channels, while most images of the data have 3"):
        with_channels(five, 3)
    assert with_channels(five[:1], 5).shape == (5, 4, 4)


def test_types_are_brought_to_one_range() -> None:
    small = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    wide = as_dtype(small, torch.uint16)
    assert wide.tolist() == [[[0, 257, 65535]]]
    assert torch.equal(as_dtype(wide, torch.uint8), small)
    with pytest.raises(CorruptSample, match="float32 image"):
        as_dtype(small.float(), torch.uint8)


@pytest.mark.parametrize(("top", "expected"), [(100, 255), (255, 255), (4000, 4095), (4096, 8191)])
def test_sixteen_bit_range_is_the_bits_in_use(top: int, expected: int) -> None:
    image = torch.tensor([[[0, top]]], dtype=torch.int32).to(torch.uint16)
    assert measure([image])["range"] == [0.0, float(expected)]


def test_float_images_span_what_was_measured() -> None:
    spec = measure([torch.tensor([[[-1000.0, 0.0, 3000.0]]])])
    assert spec["range"] == [-1000.0, 3000.0]
    assert np.allclose(spec["mean"], (1000 / 3 * 5) / 4000)
    assert measure([torch.zeros(1, 3, 3)])["range"] == [0.0, 1.0]


def test_large_images_are_stored_smaller() -> None:
    image = photo(0, 90, 200)
    got = stored(png(image), ReaderOptions(max_side=30))
    assert got.shape == (3, 30, 67)
    expected = torch.nn.functional.interpolate(
        decode_image(png(image))[None], size=(30, 67), mode="bilinear", antialias=True
    )
    assert torch.equal(got, expected[0])
    deep = (image.astype(np.uint16) * 257)[..., 0]
    small = stored(deep, ReaderOptions(max_side=30))
    assert small.dtype == torch.uint16
    assert (small.to(torch.float32) / 257 - got[0]).abs().max() <= 1
    assert stored(png(image), ReaderOptions(max_side=90)).shape == (3, 90, 200)


def test_collate_stacks_equal_sizes_and_lists_others() -> None:
    read = reader([png(photo(0))])
    same = [read.decode(record(png(photo(i)))) for i in range(3)]
    batch = read.collate(same)
    assert batch.shape == (3, 3, 20, 26)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    other = read.decode(record(png(photo(9, 31, 12))))
    ragged = read.collate([*same, other])
    assert [tuple(image.shape) for image in ragged] == [(3, 20, 26)] * 3 + [(3, 31, 12)]
    assert torch.equal(read.raw(ragged)[:3], read.raw(batch))


def test_raw_features_are_the_normalised_centre_square() -> None:
    image = photo(4, 16, 24)
    read = reader([png(image)])
    square = image[:, 4:20].transpose(2, 0, 1) / 255
    mean, std = (np.array(read.spec[k])[:, None, None] for k in ("mean", "std"))
    raw = read.raw(read.collate([read.decode(record(png(image)))]))
    assert np.allclose(raw[0].numpy(), ((square - mean) / std).ravel(), atol=1e-5)
    large = reader([png(photo(5, 200, 230))])
    assert large.spec["size"] == 224
    assert large.raw(large.collate([large.decode(record(photo(5, 200, 230)))])).shape == (1, 3072)


def test_round_trip(tmp_path) -> None:
    read = reader([png(photo(i)) for i in range(3)], max_side=18, alpha="keep")
    read.save(tmp_path)
    back = ImageReader.load(tmp_path)
    assert dict(back.spec) == dict(read.spec)
    assert back.options == read.options
    assert torch.equal(back.decode(record(photo(1))), read.decode(record(photo(1))))
    with pytest.raises(UserError, match=r"reader\.json does not exist"):
        ImageReader.load(tmp_path / "nowhere")


def test_alpha_is_a_channel_when_kept() -> None:
    rgba = png(photo(0, channels=4))
    assert reader([rgba]).spec["channels"] == 3
    assert reader([rgba], alpha="keep").spec["channels"] == 4


def test_imagenet_statistics_on_request() -> None:
    payload = [png(photo(0))]
    assert reader(payload, normalize="imagenet").spec["mean"] == [0.485, 0.456, 0.406]
    with pytest.raises(UserError, match="needs 1 or 3 channels, not 5"):
        reader([np.zeros((8, 8, 5), np.uint8)], normalize="imagenet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_side": 0}, "max_side: 0"),
        ({"size": 4}, "size: 4"),
        ({"alpha": "blend"}, "choose one of drop, keep"),
        ({"max_sid": 3}, "did you mean 'max_side'"),
        ({"measure": True}, "measure: True"),
    ],
)
def test_wrong_options_are_user_errors(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ReaderOptions.of(options)


def test_view_sizes() -> None:
    assert [view_size(side) for side in (8, 28, 32, 41, 96, 159, 160, 500)] == [
        *(16, 28, 32, 40, 96, 156, 224, 224)
    ]
