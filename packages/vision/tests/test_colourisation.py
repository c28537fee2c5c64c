"""Colourisation: Lab values, bins, soft targets, and what the encoder may see."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reference import keys
from ssl_core.errors import UserError
from ssl_core.methods.base import Step
from ssl_core.views import View
from ssl_vision.encoders.resnet_nano import resnet_nano
from ssl_vision.lab import colour_bins, rgb_to_lab
from ssl_vision.methods.colourisation import Colourisation
from ssl_vision.views.policies import mae

SPEC = {
    "channels": 3,
    "size": 32,
    "dtype": "uint8",
    "range": [0, 255],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.2, 0.3],
}


def make(**options: object) -> Colourisation:
    torch.manual_seed(0)
    return Colourisation(resnet_nano(SPEC, widths=(4, 8)), mae(SPEC, size=32), **options)


def pixels(rows: int = 3) -> Tensor:
    return torch.rand(rows, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def normalised(rgb: Tensor) -> Tensor:
    mean, std = (torch.tensor(SPEC[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (rgb - mean) / std


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_values_are_those_of_the_tables(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    got = rgb_to_lab(torch.tensor([rgb], dtype=torch.float64))
    torch.testing.assert_close(got[0], torch.tensor(lab, dtype=torch.float64), atol=0.02, rtol=0)


def test_bins_hold_every_colour_of_a_display() -> None:
    bins = torch.tensor(colour_bins()).double()
    assert len(bins) == 261
    ab = rgb_to_lab(torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)).double())[:, 1:]
    nearest = torch.cdist(ab, bins).min(1).values
    assert nearest.max() < 5 * 2**0.5 + 0.5


def test_soft_targets_sum_to_one_on_the_nearest_bins() -> None:
    method = make()
    targets = method.targets(torch.tensor([[[0.0, 0.0], [12.0, -31.0]]]))
    torch.testing.assert_close(targets.sum(-1), torch.ones(1, 2))
    assert (targets > 0).sum(-1).tolist() == [[5, 5]]
    weights = sorted(targets[0, 0][targets[0, 0] > 0].tolist())
    assert weights[-1] / weights[0] == pytest.approx(math.exp(100 / 50))


def test_blind_guesses_cost_the_logarithm_of_the_bins_at_even_shares() -> None:
    method = make()
    torch.nn.init.zeros_(method.head.weight)
    torch.nn.init.zeros_(method.head.bias)
    loss = method([View(normalised(pixels()), keys(3))])
    assert loss.total.item() == pytest.approx(math.log(261), rel=1e-5)


def test_the_encoder_sees_no_colour() -> None:
    method = make().eval()
    rgb = pixels()
    swapped = rgb.clone()
    luminance = torch.tensor([0.2126729, 0.7151522, 0.0721750]).view(1, 3, 1, 1)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    grey = (linear * luminance).sum(1, keepdim=True)
    swapped[:] = torch.where(grey <= 0.0031308, grey * 12.92, 1.055 * grey ** (1 / 2.4) - 0.055)
    first, _ = method.encode([View(normalised(rgb), keys(3))])[0]
    second, _ = method.encode([View(normalised(swapped), keys(3))])[0]
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


def test_shares_move_towards_what_was_seen_and_weights_keep_their_mean() -> None:
    method = make(momentum=0.5)
    method([View(normalised(pixels()), keys(3))])
    before, seen = method.shares.clone(), method._seen
    method.after_step(Step(0, 1, torch.tensor(False)))
    assert torch.equal(method.shares, before)
    method.after_step(Step(0, 1, torch.tensor(True)))
    torch.testing.assert_close(method.shares, (before + seen) / 2)
    assert method.shares.sum().item() == pytest.approx(1)


def test_images_without_colour_are_refused() -> None:
    grey = {**SPEC, "channels": 1, "mean": [0.5], "std": [0.25]}
    with pytest.raises(UserError, match="red, green and blue"):
        Colourisation(resnet_nano(grey), mae(grey, size=32))
