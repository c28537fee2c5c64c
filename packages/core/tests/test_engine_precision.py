"""Convolutions in bfloat16 on a CPU: gradients of small grids are right, large grids stay fast."""

import copy

import pytest
import torch
from torch import nn

from ssl_core.engine.precision import autocast, sound_convolutions

CPU = torch.device("cpu")

SMALL = [
    (nn.Conv3d(16, 16, 3, padding=1), (2, 2, 2)),
    (nn.Conv3d(16, 16, 5, padding=2), (4, 4, 4)),
    (nn.Conv3d(16, 16, (3, 1, 1), padding=(1, 0, 0)), (2, 2, 2)),
    (nn.Conv3d(16, 16, 3, padding=1, groups=4), (2, 2, 2)),
    (nn.Conv2d(16, 16, 3, padding=1), (1, 1)),
    (nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1), (1, 1)),
    (nn.ConvTranspose3d(16, 16, 3, stride=2, padding=1), (1, 1, 1)),
]


@pytest.mark.parametrize(("layer", "grid"), SMALL, ids=lambda value: str(value)[:24])
def test_weight_gradients_of_small_grids_equal_float64(layer, grid):
    """The library's own bfloat16 gradient is off by its whole size here, or not finite."""
    exact, layer = copy.deepcopy(layer).double(), copy.deepcopy(layer)
    sound_convolutions(layer, CPU, "bf16")
    x = torch.randn(4, 16, *grid, generator=torch.Generator().manual_seed(0))
    with autocast(CPU, "bf16"):
        y = layer(x)
    (y.double() ** 2).sum().backward()
    (exact(x.double()) ** 2).sum().backward()
    torch.testing.assert_close(layer.weight.grad.double(), exact.weight.grad, rtol=1e-4, atol=1e-3)


def test_large_grids_still_work_in_bfloat16():
    layer = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1))
    names = list(layer.state_dict())
    sound_convolutions(layer, CPU, "bf16")
    with autocast(CPU, "bf16"):
        assert layer(torch.randn(2, 3, 8, 8, 8)).dtype == torch.bfloat16
        assert layer(torch.randn(2, 3, 3, 8, 8)).dtype == torch.float32
    assert list(layer.state_dict()) == names
    assert isinstance(layer[0], nn.Conv3d)
    sound_convolutions(layer, CPU, "bf16")  # a second call finds nothing to do
    assert len(type(layer[0]).__mro__) == len(type(copy.deepcopy(layer)[0]).__mro__)


@pytest.mark.parametrize(("device", "precision"), [("cuda", "bf16"), ("cpu", "fp32")])
def test_other_devices_and_precisions_are_left_alone(device, precision):
    layer = nn.Conv3d(3, 8, 3)
    sound_convolutions(layer, torch.device(device), precision)
    assert type(layer) is nn.Conv3d
