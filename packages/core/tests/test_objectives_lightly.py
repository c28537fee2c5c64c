"""Equality with lightly's losses on random tensors, where lightly is installed."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from ssl_core.objectives import barlow_twins, dino, negative_cosine, nt_xent, vicreg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what lightly's own imports warn about is not ours
    loss = pytest.importorskip("lightly.loss")


def views(count: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(count, *shape, generator=generator).requires_grad_().unbind())


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent(temperature):
    z0, z1 = views(2, 32, 16)
    want = loss.NTXentLoss(temperature=temperature)(z0, z1)
    torch.testing.assert_close(nt_xent(z0, z1, temperature=temperature), want)


@pytest.mark.parametrize(("batch", "dim"), [(32, 16), (8, 64)])
def test_redundancy_reduction(batch, dim):
    z0, z1 = views(2, batch, dim)
    torch.testing.assert_close(
        barlow_twins(z0, z1, lambd=0.005), loss.BarlowTwinsLoss(lambda_param=0.005)(z0, z1)
    )
    torch.testing.assert_close(vicreg(z0, z1), loss.VICRegLoss()(z0, z1))


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")  # lightly's
def test_decoupled():
    z0, z1 = views(2, 32, 16)
    torch.testing.assert_close(nt_xent(z0, z1, decoupled=True), loss.DCLLoss()(z0, z1))
    weighted = nt_xent(z0, z1, decoupled=True, weight_sigma=0.5)
    torch.testing.assert_close(weighted, loss.DCLWLoss()(z0, z1))


def test_cosine():
    p, t = views(2, 32, 16)
    torch.testing.assert_close(negative_cosine(p, t), loss.NegativeCosineSimilarity()(p, t))


def test_dino():
    student, teacher = views(4, 8, 24), views(2, 8, 24)
    reference = loss.DINOLoss(output_dim=24, warmup_teacher_temp_epochs=1)
    want = reference(teacher, student, teacher_temp=0.04)
    torch.testing.assert_close(dino(student, teacher), want)
