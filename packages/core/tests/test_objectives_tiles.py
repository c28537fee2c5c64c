"""Tiles of any size give the same log-sum-exps as one matrix, and the same gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from reference import assert_gradients, draw
from ssl_core.objectives import info_nce, nt_xent, sup_con
from ssl_core.objectives.tiles import KEPT, TILE, fits, pair_partition, self_partition

SIZES = [(1, 1), (2, 3), (4, 2), (5, 7), (64, 64)]


@pytest.mark.parametrize("kept", [0, 30, 1000])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("group", [1, 2, 3])
def test_self_partition_is_its_definition(size, group, kept, monkeypatch):
    monkeypatch.setitem(TILE, "cpu", size)
    monkeypatch.setitem(KEPT, "cpu", kept)
    z = draw(12, 4)
    weights = draw(12, seed=1).detach().abs()
    left_out = torch.arange(12) // group
    left_out = left_out.unsqueeze(0) == left_out.unsqueeze(1)
    want = (weights * (z @ z.T).masked_fill(left_out, -torch.inf).logsumexp(1)).sum()
    got = self_partition(z, weights=weights, largest=10.0, group=group)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert_gradients(got, [z], list(torch.autograd.grad(want, [z])))


@pytest.mark.parametrize("kept", [0, 30, 1000])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decoupled", [False, True])
def test_pair_partition_is_its_definition(size, decoupled, kept, monkeypatch):
    monkeypatch.setitem(TILE, "cpu", size)
    monkeypatch.setitem(KEPT, "cpu", kept)
    a, b = draw(9, 4), draw(9, 4, seed=1)
    weights = draw(9, seed=2).detach().abs()
    logits = a @ b.T
    if decoupled:
        logits = logits.masked_fill(torch.eye(9, dtype=torch.bool), -torch.inf)
    want = (weights * (logits.logsumexp(1) + logits.logsumexp(0))).sum()
    got = pair_partition(a, b, weights=weights, largest=12.0, decoupled=decoupled)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert_gradients(got, [a, b], list(torch.autograd.grad(want, [a, b])))


def test_cold_temperatures_go_by_rows_with_their_maximum():
    assert fits(0.01, torch.float32) is None
    assert fits(0.01, torch.float64) == pytest.approx(100)
    assert fits(0.1, torch.float32) == pytest.approx(10)
    learned = torch.tensor(0.1, requires_grad=True)
    assert fits(learned, torch.float32) == pytest.approx(10)
    z = [draw(8, 4), draw(8, 4, seed=1)]
    for loss in (nt_xent, info_nce):
        want = loss(*z, temperature=0.01)
        got = loss(*(x.detach().float() for x in z), temperature=0.01)
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5])
def test_float32_gradients_are_as_good_as_needed(temperature):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(700, 32, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(2, 700, 32, generator=generator, dtype=torch.float64)
    exact = [(base + n).requires_grad_() for n in noise]  # near convergence
    want = torch.autograd.grad(nt_xent(*exact, temperature=temperature), exact)
    single = [x.detach().float().requires_grad_() for x in exact]
    got = torch.autograd.grad(nt_xent(*single, temperature=temperature), single)
    z = F.normalize(torch.cat(single), dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    half = torch.arange(700)
    plain = torch.autograd.grad(F.cross_entropy(logits, torch.cat([half + 700, half])), single)
    for g, p, w in zip(got, plain, want, strict=True):
        size = w.abs().max()
        ours, theirs = ((x.double() - w).abs().max() / size for x in (g, p))
        assert ours <= max(10 * theirs, 1e-5)  # the positives' pull is added apart


@pytest.mark.parametrize("loss", [nt_xent, info_nce])
@pytest.mark.parametrize("kept", [0, 2**22])
@pytest.mark.parametrize("temperature", [0.2, 0.5])
def test_rounded_products_err_by_rounding(loss, kept, temperature, monkeypatch):
    monkeypatch.setitem(TILE, "cpu", (64, 64))
    monkeypatch.setitem(KEPT, "cpu", kept)
    base = draw(200, 32).detach().float()
    z = [(base + 0.3 * draw(200, 32, seed=s).detach().float()).requires_grad_() for s in (1, 2)]
    want, got = loss(*z, temperature=temperature), loss(*z, temperature=temperature, bf16=True)
    similarity = 2**-7 / temperature  # two rounded factors and a rounded product
    assert 0 < abs(float((got - want).detach())) <= similarity
    for w, g in zip(torch.autograd.grad(want, z), torch.autograd.grad(got, z), strict=True):
        assert 0 < (g - w).abs().max() <= 2 * similarity * w.abs().max()


def test_rounded_products_are_refused_where_there_are_no_tiles():
    z = [draw(8, 4), draw(8, 4, seed=1)]
    for loss in (nt_xent, info_nce):
        with pytest.raises(ValueError, match="bf16"):
            loss(*(x.float() for x in z), temperature=0.01, bf16=True)
    with pytest.raises(ValueError, match="bf16"):
        info_nce(*z, symmetric=False, bf16=True)


def test_unequal_upstream_scales_reach_the_gradient():
    z = [draw(6, 4), draw(6, 4, seed=1)]
    once = torch.autograd.grad(nt_xent(*z) + info_nce(*z) + sup_con(*z), z)
    twice = torch.autograd.grad(2 * nt_xent(*z) + 2 * (info_nce(*z) + sup_con(*z)), z)
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(2 * a, b, rtol=1e-12, atol=0)


def test_what_needs_no_gradient_costs_none():
    z = draw(6, 4).detach()
    assert not nt_xent(z, z).requires_grad
    only = draw(6, 4, seed=1)
    assert_gradients(
        info_nce(z, only),
        [only],
        list(torch.autograd.grad(info_nce(draw(6, 4), only), [only])),
    )
