"""Equality with lightly's losses on random tensors, where lightly is installed."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives import (
    RunningCovariance,
    barlow_twins,
    dino,
    ibot_patches,
    info_nce,
    koleo,
    msn,
    negative_cosine,
    nt_xent,
    sinkhorn,
    swav,
    tico,
    vicreg,
    vicregl,
    w_mse,
)

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


def test_swav():
    high, low = views(2, 8, 24), views(3, 8, 24)
    unit = [F.normalize(v, dim=1) for v in (*high, *low)]  # scores are cosines
    want = loss.SwaVLoss()(unit[:2], unit[2:])
    codes = [sinkhorn(v.detach()) for v in unit[:2]]
    torch.testing.assert_close(swav(unit, codes), want.reshape(()))


def test_ibot_patches():
    hidden = torch.tensor([[True, False, True, True], [False, True, False, False]])
    student, teacher = views(2, 4, 12)
    reference = loss.IBOTPatchLoss(output_dim=12)
    torch.testing.assert_close(
        ibot_patches(student, teacher, hidden),
        reference(teacher, student, hidden.unflatten(1, (2, 2))),
    )


def test_koleo():
    (z,) = views(1, 32, 16)
    torch.testing.assert_close(koleo(z), loss.KoLeoLoss()(z))


def test_tico_over_steps():
    reference, running = loss.TiCoLoss(beta=0.9, rho=8.0), RunningCovariance(16)
    for step in range(3):
        z0, z1 = (v + step for v in views(2, 32, 16))
        new = running.blended(z0)
        torch.testing.assert_close(tico(z0, z1, new), reference(z0, z1))
        running.update(new)


def test_vicregl():
    (a, b), (map_a, map_b) = views(2, 8, 6), views(2, 8, 3, 3, 5)
    grid_a, grid_b = views(2, 8, 3, 3, 2)
    reference = loss.VICRegLLoss(num_matches=(7, 4))
    want = reference([(a, map_a), (b, map_b)], [grid_a.detach(), grid_b.detach()])
    where = [g.detach().flatten(1, 2) for g in (grid_a, grid_b)]
    maps = [m.flatten(1, 2) for m in (map_a, map_b)]
    got = vicregl([a, b], maps, where, matches=(7, 4), feature_matches=(7, 4))
    torch.testing.assert_close(got, want.reshape(()))


def test_w_mse():
    z = views(2, 32, 8)
    reference = loss.WMSELoss(w_size=32, embedding_dim=8, w_iter=1)
    got = w_mse(*z, size=32, eps=0.0)
    torch.testing.assert_close(got, reference(torch.cat(z)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("iterations", [0, 3])
def test_msn(iterations):
    a0, a1, target, prototypes = views(4, 12, 8)
    reference = loss.MSNLoss(sinkhorn_iterations=iterations)
    want = reference(torch.cat([a0, a1]), target, prototypes)
    got = msn([a0, a1], target, prototypes, sinkhorn_iterations=iterations)
    torch.testing.assert_close(got, want)


def test_memory():
    """NTXentLoss with a memory bank compares with the bank alone; info_nce with in_batch=False."""
    q, k = views(2, 8, 16)
    reference = loss.NTXentLoss(temperature=0.2, memory_bank_size=(24, 16))
    reference(q, k.detach())  # fills the first rows
    bank = reference.memory_bank.bank.clone()
    bank = bank if bank.shape == (24, 16) else bank.T
    want = reference(q, k.detach())
    got = info_nce(q, k, temperature=0.2, symmetric=False, negatives=bank, in_batch=False)
    torch.testing.assert_close(got, want)
