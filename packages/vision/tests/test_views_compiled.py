"""The compiled crop and colour chain against torch's operations, on the same draws."""

import dataclasses

import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.ops.blur import GaussianBlur
from ssl_core.ops.colour import ColourJitter, Grey, Normalise, Solarise
from ssl_core.ops.geometry import RandomResizedCrop
from ssl_core.ops.pipeline import Augmentation
from ssl_core.ops.pixels import crop_resize
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_vision import VISION

pytest.importorskip("numba")

COUNT = 48


def stored(channels: int, dtype: torch.dtype, height: int = 41, width: int = 37) -> torch.Tensor:
    """Images as they lie in memory, channels last, over the whole range of their type."""
    pixels = torch.rand(COUNT, height, width, channels, generator=torch.Generator().manual_seed(3))
    pixels[:4] = pixels[:4].mul(4).round().div(4)  # ties of channels, greys, saturation
    if dtype != torch.float32:
        pixels = (pixels * torch.iinfo(dtype).max).round().to(dtype)
    return pixels.permute(0, 3, 1, 2)


def chain(
    channels: int, dtype: torch.dtype, *, size: int = 24, bicubic: bool = False, p: float = 0.5
) -> Augmentation:
    high = 1.0 if dtype == torch.float32 else float(torch.iinfo(dtype).max)
    return Augmentation(
        size,
        Normalise((0.4,) * channels, (0.25,) * channels),
        (0.0, high),
        crop=RandomResizedCrop((0.1, 1.0)),
        jitter=ColourJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        grey=Grey(p),
        blur=GaussianBlur(p, kernel=7),
        solarise=Solarise(p),
        interpolation="bicubic" if bicubic else "bilinear",
    )


def keys(count: int = COUNT) -> Rng:
    return Rng.at(0, 5, torch.arange(count))


def batch(data: torch.Tensor | list[torch.Tensor]) -> Batch:
    ids = torch.arange(len(data))
    return Batch(data, ids, ids)


def by_torch(monkeypatch: pytest.MonkeyPatch, make, data) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setenv("SSL_COMPILED", "0")
        return make(batch(data), keys(len(data))).data


def close(ours: View, theirs: torch.Tensor, augmentation: Augmentation) -> None:
    """Equal to 0.01/255, but for values at solarisation's threshold that only one way inverts."""
    std = augmentation.normalise.std[0]
    off = (ours.data - theirs).abs() * std > 0.01 / 255
    assert not off[~ours.params["solarise"]].any()
    assert off.float().mean() < 1e-4


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_views_equal_those_by_torch(
    channels: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, data = chain(channels, dtype), stored(channels, dtype)
    close(make(batch(data), keys()), by_torch(monkeypatch, make, data), make)


@pytest.mark.parametrize("size", [5, 20, 61])
@pytest.mark.parametrize("bicubic", [False, True])
def test_every_size_and_kernel(size: int, bicubic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    make = chain(3, torch.uint8, size=size, bicubic=bicubic)
    data = stored(3, torch.uint8)
    close(make(batch(data), keys()), by_torch(monkeypatch, make, data), make)


def test_large_images_go_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    make = chain(3, torch.uint8, size=224)
    data = stored(3, torch.uint8, 190, 230)[:6]
    close(make(batch(data), keys(6)), by_torch(monkeypatch, make, data), make)


def test_unequal_images_and_planes_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    make = chain(3, torch.uint8)
    whole = stored(3, torch.uint8)
    ragged = [image[:, : 17 + n % 20, : 36 - n % 13] for n, image in enumerate(whole)]
    close(make(batch(ragged), keys()), by_torch(monkeypatch, make, ragged), make)
    planes = make(batch(whole.contiguous()), keys()).data
    assert torch.equal(planes, make(batch(whole), keys()).data)


def test_operations_without_strength_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Augmentation(
        24, Normalise((0.5,) * 3, (0.2,) * 3), jitter=ColourJitter(0.0, 0.4, 0.0, 0.1, p=1.0)
    )
    data = stored(3, torch.uint8)
    ours = make(batch(data), keys()).data
    assert (ours - by_torch(monkeypatch, make, data)).abs().max() * 0.2 <= 0.01 / 255


def test_a_view_does_not_depend_on_its_batch() -> None:
    make, data = chain(3, torch.uint8), stored(3, torch.uint8)
    whole = make(batch(data), keys()).data
    for n in (0, 7, COUNT - 1):
        alone = make(batch(data[n : n + 1]), Rng.at(0, 5, torch.tensor([n]))).data
        assert torch.equal(alone[0], whole[n])


def test_a_policy_of_several_views(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {
        "channels": 3,
        "size": 40,
        "height": 40,
        "width": 40,
        "dtype": "uint8",
        "range": [0.0, 255.0],
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    views = VISION.create_views("dino", spec, {"size": 32})
    data = stored(3, torch.uint8, 40, 40)
    ours = views(batch(data), keys())
    monkeypatch.setenv("SSL_COMPILED", "0")
    for a, b in zip(ours, views(batch(data), keys()), strict=True):
        assert ((a.data - b.data).abs() > 1e-3).float().mean() < 1e-4


def test_other_types_of_pixels_go_through_torch() -> None:
    make = chain(3, torch.int32)
    data = stored(3, torch.int32)
    assert make(batch(data), keys()).data.isfinite().all()


@pytest.mark.parametrize("box", [[-1, 0, 9, 9], [0, 30, 9, 9], [35, 0, 9, 9], [0, 0, 0, 9]])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("compiled", ["1", "0"])
def test_boxes_outside_their_image_are_refused(
    box: list[int], ragged: bool, compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_COMPILED", compiled)
    data = stored(3, torch.uint8)
    boxes = torch.tensor([[0, 0, 9, 9], box]).repeat(COUNT // 2, 1)
    images = list(data) if ragged else data
    with pytest.raises(ValueError, match="is not inside an image of"):
        crop_resize(images, boxes, (8, 8), value_range=(0, 255))


def test_rows_without_a_box_and_mixed_channels_are_refused() -> None:
    data, boxes = stored(3, torch.uint8), torch.tensor([[0, 0, 9, 9]]).repeat(COUNT, 1)
    with pytest.raises(IndexError):
        crop_resize(data, boxes, (8, 8), value_range=(0, 255), rows=[COUNT])
    with pytest.raises(ValueError, match="images of 1 and of 3 channels"):
        crop_resize([data[0], data[1, :1]], boxes[:2], (8, 8), value_range=(0, 255))


def test_means_of_another_number_of_channels_are_refused() -> None:
    make = dataclasses.replace(chain(3, torch.uint8), normalise=Normalise((0.5,) * 2, (0.2,) * 2))
    with pytest.raises(ValueError, match="broadcast"):
        make(batch(stored(3, torch.uint8)), keys())
