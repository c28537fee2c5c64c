"""PIRL: released values over two steps, the bank's rules, who learns from what."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from reference import Net, assert_gradients, draw, golden
from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.methods.base import Step
from ssl_core.methods.pirl import PIRL, Reps
from ssl_core.networks.bank import Bank
from ssl_core.objectives import memory_log_norm, memory_nce, moco
from ssl_core.rng import Rng
from ssl_core.views import View

FINITE, BAD = torch.tensor(True), torch.tensor(False)


class TwoImages:
    """The batch itself, twice."""

    def __call__(self, batch, rng):
        return [View(batch.data, rng.fold("view", v)) for v in range(2)]


def images(rows=6):
    data = torch.randn(rows, 2, 24, 24, generator=torch.Generator().manual_seed(1))
    ids = torch.arange(rows)
    return Batch(data, ids, ids + 3)


def made(**options):
    torch.manual_seed(0)
    return PIRL(Net(), TwoImages(), **{"bank": 20, "dim": 5, "negatives": 7, **options})


def reps_of(method, batch, step=0):
    method.before_step(step, 10)
    return method.encode(method.views(batch, Rng.at(0, step, batch.ids)))


@pytest.mark.parametrize("form", ["nce", "cross_entropy"])
def test_two_steps_equal_the_released_ones(form):
    """facebookresearch/vissl, losses/nce_loss.py; its ratios hold 1.2e-7 more below the bar."""
    g = golden(f"pirl/vissl_two_steps_{form}")
    temperature = g["in_tau"].item()
    bank = Bank(40, 8).double()
    bank.rows.copy_(g["in_memory"])
    norm = None
    for step in (0, 1):
        index = g[f"in_sample{step}"]
        leaves = [g[f"in_{name}{step}"].requires_grad_() for name in ("patch", "image")]
        losses = []
        for z, name in zip(leaves, ("patch", "image"), strict=True):
            own, far = bank.of(index), bank.rows[g[f"in_negatives_{name}{step}"][:, 1:]]
            if norm is None:
                norm = memory_log_norm(z, own, far, size=40, temperature=temperature)
            if form == "nce":
                loss = memory_nce(z, own, far, norm, size=40, temperature=temperature)
            else:
                rows = zip(z.split(1), own.split(1), far, strict=True)
                loss = torch.stack([moco(*row, temperature=temperature) for row in rows]).mean()
            losses.append(loss)
        loss = sum(losses) / 2
        close = {"rtol": 1e-5, "atol": 1e-9} if form == "nce" else {"rtol": 1e-10, "atol": 0}
        torch.testing.assert_close(loss, g[f"out_loss{step}"].reshape(()), **close)
        if form == "nce":
            torch.testing.assert_close(
                norm.exp(), g[f"out_Z{step}"].reshape(()), rtol=1e-10, atol=0
            )
            for got, name in zip(
                torch.autograd.grad(loss, leaves), ("patch", "image"), strict=True
            ):
                torch.testing.assert_close(got, g[f"grad_{name}{step}"], rtol=1e-4, atol=1e-7)
        else:
            assert_gradients(loss, leaves, [g[f"grad_{n}{step}"] for n in ("patch", "image")])
        bank.update(index, leaves[1], finite=FINITE)
        torch.testing.assert_close(bank.rows, g[f"out_memory{step}"], rtol=1e-10, atol=1e-12)


def test_collapsed_rows_cost_a_blind_guess_about_each():
    same = torch.ones(4, 3, dtype=torch.float64)
    norm = memory_log_norm(same, same, same[:2].repeat(3, 1), size=40)
    assert norm.item() == pytest.approx(math.log(40) + 1 / 0.07, rel=1e-12)
    loss = memory_nce(same, same, same[:2].repeat(3, 1), norm, size=40)
    assert loss.item() == pytest.approx(math.log(7) + 6 * math.log(7 / 6), rel=1e-12)


def test_negatives_may_be_shared_and_only_queries_learn():
    q, t, n = draw(4, 3), draw(4, 3, seed=1), draw(6, 3, seed=2)
    norm = torch.tensor(8.0)
    loss = memory_nce(q, t, n, norm, size=9)
    assert torch.equal(loss, memory_nce(q, t, n, norm, size=9))
    own = memory_nce(q, t, n.expand(4, 6, 3), norm, size=9)
    torch.testing.assert_close(loss, own, rtol=1e-12, atol=0)
    loss.backward()
    assert q.grad.abs().sum() > 0
    assert t.grad is None
    assert n.grad is None


def test_a_row_moves_only_when_its_sample_is_seen():
    bank = Bank(9, 3)
    before, z = bank.rows.clone(), torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    bank.update(torch.tensor([4, 7, 4]), z.fill_(torch.nan), finite=BAD)
    assert torch.equal(bank.rows, before)
    z = torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    bank.update(torch.tensor([4, 7, 4]), z, finite=FINITE)
    still = [0, 1, 2, 3, 5, 6, 8]
    assert torch.equal(bank.rows[still], before[still])
    unit = F.normalize(z, dim=1)
    want = F.normalize(0.5 * before[[4, 7]] + 0.5 * torch.stack([(unit[0] + unit[2]) / 2, unit[1]]))
    torch.testing.assert_close(bank.rows[[4, 7]], want)
    drawn = bank.drawn(3, 500)
    assert torch.equal(drawn, bank.drawn(3, 500))
    assert not torch.equal(drawn, bank.drawn(4, 500))
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in bank.rows.tolist()}


def test_the_image_alone_enters_the_bank_and_the_normaliser_is_kept():
    method, batch = made(), images()
    reps = reps_of(method, batch)
    assert torch.equal(reps.index, batch.index)
    before = method.bank.rows.clone()
    method.loss(reps)
    method.after_step(Step(0, 10, BAD))
    assert torch.equal(method.bank.rows, before)
    assert method.log_norm.isinf()
    method.loss(reps)
    method.after_step(Step(0, 10, FINITE))
    first = method.log_norm.clone()
    assert first.isfinite()
    moved = F.normalize(before[3:9] + F.normalize(reps.image.detach(), dim=1), dim=1)
    torch.testing.assert_close(method.bank.rows[3:9], moved)
    method.loss(reps_of(method, batch, step=1))
    method.after_step(Step(1, 10, FINITE))
    assert torch.equal(method.log_norm, first)


def test_both_forms_weigh_tiles_and_image():
    for form in ("nce", "softmax"):
        method, batch = made(form=form, weight=0.25), images()
        reps = reps_of(method, batch)
        loss = method.loss(reps)
        alone = {}
        for name, weight in (("tiles", 1.0), ("image", 0.0)):
            method.weight = weight
            alone[name] = method.loss(reps).total
        want = 0.25 * alone["tiles"] + 0.75 * alone["image"]
        torch.testing.assert_close(loss.total, want)
        loss.total.backward()
        assert all(p.grad is not None for p in method.parameters())


def test_every_order_of_tiles_is_met_and_keyed():
    method, batch = made(), images()
    views = method.views(batch, Rng.at(0, 0, batch.ids))
    with torch.no_grad():
        one, two = method.encode(views), method.encode(views)
        other = reps_of(method, batch, step=1)
    assert torch.equal(one.tiles, two.tiles)
    assert not torch.allclose(one.tiles, other.tiles)


def test_a_bank_too_small_for_the_data_says_so():
    method, batch = made(bank=8), images()
    with pytest.raises(UserError, match=r"method\.bank"):
        method.loss(Reps(torch.ones(6, 5), torch.ones(6, 5), batch.index))
    with pytest.raises(ValueError, match="form"):
        made(form="other")
