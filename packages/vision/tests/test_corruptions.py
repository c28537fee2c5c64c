"""Corruptions: what each does, that five is worse than one, and that samples do not mix."""

import numpy as np
import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_vision.corruptions import CORRUPTIONS, CorruptedViews, corrupt
from ssl_vision.views import policies

IDS = torch.arange(6)
RNG = Rng.at(0, 0, IDS)


def pictures(side: int, channels: int = 3) -> torch.Tensor:
    coarse = torch.rand(6, channels, 6, 6, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("side", [32, 96])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_keyed_bounded_and_worse_when_more_severe(name: str, side: int) -> None:
    x = pictures(side)
    kept = x.clone()
    distances = []
    for severity in (1, 5):
        got = corrupt(x, name, severity, RNG)
        assert got.shape == x.shape
        assert got.min() >= 0
        assert got.max() <= 1
        assert torch.equal(got, corrupt(x, name, severity, RNG))
        alone = corrupt(x[4:], name, severity, RNG[4:])
        torch.testing.assert_close(got[4:], alone, rtol=0, atol=1e-5)
        distances.append(float((got - x).square().mean()))
    assert torch.equal(x, kept)
    # Saturation falls at the low severities and rises at the high ones.
    assert distances[1] > distances[0] or name == "saturate"


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_number_of_channels(name: str, channels: int) -> None:
    x = pictures(32, channels)
    assert corrupt(x, name, 3, RNG).shape == x.shape


def test_noise_has_the_stated_strength() -> None:
    x = torch.full((6, 3, 128, 128), 0.5)
    assert (corrupt(x, "gaussian_noise", 1, RNG) - x).std() == pytest.approx(0.08, rel=0.02)
    hit = corrupt(x, "impulse_noise", 5, RNG) != x
    assert hit.double().mean() == pytest.approx(0.27, rel=0.02)


@pytest.mark.parametrize(
    ("severity", "photons", "level"), [(1, 60, 0.6), (2, 25, 0.3), (5, 3, 0.1)]
)
def test_shot_noise_is_poisson(severity: int, photons: float, level: float) -> None:
    got = corrupt(torch.full((6, 3, 128, 128), level), "shot_noise", severity, RNG).double()
    # The clip at 1 takes some of the mass of the brightest; here it is below one in a thousand.
    assert got.mean() == pytest.approx(level, rel=0.02)
    assert got.var() == pytest.approx(level / photons, rel=0.05)
    counts = (got * photons).round()
    zero = (counts == 0).double().mean()
    assert zero == pytest.approx(np.exp(-level * photons), rel=0.1, abs=1e-3)


def test_blurs_keep_flat_images_and_the_mean() -> None:
    flat = torch.full((6, 3, 40, 40), 0.4)
    for name in ("defocus_blur", "motion_blur"):
        torch.testing.assert_close(corrupt(flat, name, 5, RNG), flat)
    point = torch.zeros(6, 1, 97, 97)
    point[:, :, 48, 48] = 1
    spread = corrupt(point, "defocus_blur", 5, RNG)
    torch.testing.assert_close(spread.sum((1, 2, 3)), torch.ones(6))
    width = (spread[0, 0, 48] > 1e-4).sum()
    assert 19 <= width <= 23  # a disk of radius 10


def test_hsv_changes_equal_their_definition() -> None:
    x = pictures(96)
    value = x.amax(1)
    brighter = corrupt(x, "brightness", 3, RNG)
    torch.testing.assert_close(brighter.amax(1), (value + 0.3).clamp(max=1))
    saturation = 1 - x.amin(1) / value
    pale = corrupt(x, "saturate", 1, RNG)
    torch.testing.assert_close(1 - pale.amin(1) / pale.amax(1), 0.3 * saturation)
    contrast = corrupt(x, "contrast", 1, RNG)
    mean = x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(contrast, 0.4 * x + 0.6 * mean)


def test_jpeg_keeps_flat_images_and_takes_other_bands_one_by_one() -> None:
    flat = torch.full((6, 3, 96, 96), 102 / 255)
    assert (corrupt(flat, "jpeg", 5, RNG) - flat).abs().max() <= 2 / 255
    five = pictures(96, 5)
    got = corrupt(five, "jpeg", 2, RNG)
    assert torch.equal(got[:, 3:4], corrupt(five[:, 3:4], "jpeg", 2, RNG))


def test_the_corrupted_plain_view() -> None:
    spec = {"channels": 3, "size": 32, "range": [0, 255], "mean": [0.4] * 3, "std": [0.2] * 3}
    views = policies.simclr(spec)
    data = (pictures(32) * 255).round().to(torch.uint8)
    batch = Batch(data, IDS, IDS)
    noisy = CorruptedViews(views, (0.4,) * 3, (0.2,) * 3, "contrast", 5)
    clean = views.plain(batch) * 0.2 + 0.4
    expected = corrupt(clean, "contrast", 5, RNG)
    torch.testing.assert_close(noisy.plain(batch) * 0.2 + 0.4, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "severity"), [("rain", 1), ("jpeg", 0), ("jpeg", 6)])
def test_unknown_names_and_severities(name: str, severity: int) -> None:
    with pytest.raises(ValueError, match=r"corruption|severity"):
        corrupt(pictures(8), name, severity, RNG)
