"""What tests of several packages measure against: golden values, fixed draws, one plain view."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ssl_core.batch import Batch
from ssl_core.encoder import Features
from ssl_core.rng import Rng
from ssl_core.views import View

GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
"""Inputs and outputs of released code: one folder a system, one `.npz` a case."""


def golden(case: str) -> dict[str, Tensor]:
    """The arrays of one case, "system/case"."""
    with np.load(GOLDEN / f"{case}.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Float64 standard normals that require a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def assert_gradients(loss: Tensor, leaves: list[Tensor], wants: list[Tensor]) -> None:
    """Gradients of `loss` to 1e-10 of the largest entry."""
    for got, want in zip(torch.autograd.grad(loss, leaves), wants, strict=True):
        assert (got - want).abs().max() <= 1e-10 * want.abs().max()


def keys(rows: int) -> Rng:
    """One key a row."""
    return Rng.at(0, 0, torch.arange(rows))


class OneView:
    """A view policy: the batch itself as the only view."""

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        return [View(batch.data, rng)]

    def plain(self, batch: Batch) -> Tensor:
        return batch.data


class Net(nn.Module):
    """One strided convolution, a nonlinearity, the mean; `[B, 2, *sides]` to `[B, 6]`."""

    embed_dim = 6

    def __init__(self, axes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](2, 6, 3, 2, 1)

    def forward(self, x: Tensor) -> Features:
        return Features(torch.relu(self.conv(x)).flatten(2).mean(2))
