"""Losses with a momentum encoder or a memory against released code and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from reference import assert_gradients, draw, golden
from ssl_core.objectives import (
    Mixing,
    hardest,
    info_nce,
    mix_negatives,
    moco,
    moco_v3,
    nearest,
    nnclr,
    nt_xent,
)


@pytest.mark.parametrize("case", ["solo_infonce_queue_tau007", "solo_infonce_queue_tau020"])
def test_moco_equals_solo_learn(case):
    """vturrisi/solo-learn mocov2plus_loss_func; its gradient is at unit queries."""
    g = golden(f"moco_v2/{case}")
    q = g["in_q"].requires_grad_()
    loss = moco(q, g["in_k"], g["in_queue"].T, temperature=g["in_tau"].item())
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    unit, grad = q.detach(), g["grad_q"]
    assert_gradients(loss, [q], [grad - (grad * unit).sum(1, keepdim=True) * unit])
    flat = torch.ones_like(unit)
    collapsed = moco(flat, flat, torch.ones(32, 16, dtype=torch.float64))
    assert collapsed.item() == pytest.approx(g["out_collapse"].item(), rel=1e-12)


def test_moco_equals_lightly_over_four_steps():
    """lightly 1.6.0 NTXentLoss with a memory bank: keys enter after the loss and wrap around."""
    g = golden("moco_v2/lightly_ntxent_bank_4steps")
    bank, place = g["in_bank"].clone(), int(g["in_ptr"])
    for step in range(4):
        q, k = g[f"in_q{step}"].requires_grad_(), g[f"in_k{step}"]
        loss = moco(q, k, bank, temperature=g["in_tau"].item())
        torch.testing.assert_close(loss, g[f"out_loss{step}"].reshape(()), rtol=1e-10, atol=0)
        assert_gradients(loss, [q], [g[f"grad_q{step}"]])
        bank[place : place + 8] = F.normalize(k, dim=1)
        place = (place + 8) % 24
        torch.testing.assert_close(bank, g[f"out_bank{step}"], rtol=1e-12, atol=0)


def test_only_queries_learn():
    q, k, queue = draw(4, 3), draw(4, 3, seed=1), draw(6, 3, seed=2)
    moco(q, k, queue, hard=queue.expand(4, 6, 3)).backward()
    nnclr(q, q, k, k).backward()
    moco_v3(q, q, k, k).backward()
    assert q.grad is not None
    assert k.grad is None
    assert queue.grad is None


def test_moco_v3_is_scaled_cross_entropy():
    q0, q1, k0, k1 = (draw(5, 4, seed=s) for s in range(4))
    want = torch.zeros((), dtype=torch.float64)
    for q, k in ((q0, k1), (q1, k0)):
        logits = F.normalize(q, dim=1) @ F.normalize(k.detach(), dim=1).T / 0.2
        want = want + 2 * 0.2 * F.cross_entropy(logits, torch.arange(5))
    got = moco_v3(q0, q1, k0, k1, temperature=0.2)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert_gradients(got, [q0, q1], list(torch.autograd.grad(want, [q0, q1])))
    flat = torch.ones(5, 4, dtype=torch.float64)
    assert moco_v3(flat, flat, flat, flat).item() == pytest.approx(4 * math.log(5), rel=1e-12)


def test_nnclr_anchors_are_the_neighbours():
    p0, p1, n0, n1 = (draw(5, 4, seed=s) for s in range(4))
    want = torch.zeros((), dtype=torch.float64)
    for n, p in ((n0, p1), (n1, p0)):
        logits = F.normalize(n.detach(), dim=1) @ F.normalize(p, dim=1).T / 0.1
        want = want + F.cross_entropy(logits, torch.arange(5)) / 2
    got = nnclr(p0, p1, n0, n1)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert_gradients(got, [p0, p1], list(torch.autograd.grad(want, [p0, p1])))


def test_a_bank_of_the_batch_itself_gives_each_its_own_neighbour():
    z = draw(6, 4).detach()
    bank = torch.cat([F.normalize(z[[3, 0, 5, 1, 2, 4]], dim=1)])
    torch.testing.assert_close(nearest(3 * z, bank), F.normalize(z, dim=1), rtol=1e-12, atol=0)
    p = draw(6, 4, seed=1)
    want = info_nce(z, p, temperature=0.1, symmetric=False)
    torch.testing.assert_close(nnclr(p, p, nearest(z, bank), nearest(z, bank)), want)


def test_mixed_negatives_equal_a_port():
    """davidsvy/hard-negative-mixing: its draws, its queue with one masked entry, its gradient."""
    g = golden("mochi/port_full_step")
    w = g["in_W_q"].requires_grad_()
    w_k = g["in_m"] * g["in_W_k"] + (1 - g["in_m"]) * w.detach()
    q, k = g["in_x_q"] @ w.T, (g["in_x_k"] @ w_k.T).detach()
    row = torch.arange(6).unsqueeze(1)

    def places(rows: torch.Tensor) -> torch.Tensor:
        """Queue rows as places in each query's pool."""
        return (g["in_top"].unsqueeze(1) == rows.unsqueeze(2)).long().argmax(2)

    draws = Mixing(
        places(g["in_type1_i"]),
        places(g["in_type1_j"]),
        g["in_alpha"].squeeze(2),
        places(g["in_type2_j"]),
        g["in_beta"].squeeze(2),
    )
    hard = mix_negatives(q, g["in_queue"][g["in_top"]], draws)
    torch.testing.assert_close(hard.norm(dim=2), torch.ones(6, 9, dtype=torch.float64))
    tau = g["in_tau"].item()
    logits = (F.normalize(q.detach(), dim=1).unsqueeze(1) * hard).sum(2) / tau
    torch.testing.assert_close(logits, g["out_logits_without_masked"][:, 33:], rtol=1e-10, atol=0)
    losses = []
    for i in range(6):
        kept = g["in_queue"][g["in_queue_file"][0] != g["in_file"][i]]
        own = slice(i, i + 1)
        losses.append(moco(q[own], k[own], kept, temperature=tau, hard=hard[own]))
    loss = torch.stack(losses).mean()
    torch.testing.assert_close(loss, g["out_loss"].reshape(()), rtol=1e-10, atol=0)
    assert_gradients(loss, [w], [g["grad_W_q"]])
    found = hardest(q[[0, 1, 3, 4, 5]].detach(), g["in_queue"], count=8)
    torch.testing.assert_close(found.sort(1).values, g["in_top"][[0, 1, 3, 4, 5]].sort(1).values)
    assert row.shape == (6, 1)


def test_mixing_in_the_query_moves_towards_it():
    q = F.normalize(draw(4, 5).detach(), dim=1)
    pool = F.normalize(draw(4, 6, 5, seed=1).detach(), dim=2)
    index, share = torch.arange(6).expand(4, 6), torch.full((4, 6), 0.3)
    none = torch.empty(4, 0)
    mixed = mix_negatives(q, pool, Mixing(none.long(), none.long(), none, index, share))
    parent, child = ((x * q.unsqueeze(1)).sum(2) for x in (pool, mixed))
    assert (child >= parent).all()
    base = moco(q, q, pool[0])
    assert moco(q, q, pool[0], hard=mixed) > base  # another negative never lowers the loss
    assert moco(q, q, pool[0], hard=mixed[:, :0]) == base


def test_extra_candidates_join_the_batch():
    q, k, hard = draw(4, 3), draw(4, 3, seed=1), draw(4, 2, 3, seed=2)
    logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / 0.3
    own = (F.normalize(q, dim=1).unsqueeze(1) * F.normalize(hard, dim=2)).sum(2) / 0.3
    want = F.cross_entropy(torch.cat([logits, own], 1), torch.arange(4))
    got = info_nce(q, k, temperature=0.3, symmetric=False, hard=hard)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert_gradients(got, [q, k, hard], list(torch.autograd.grad(want, [q, k, hard])))


def test_weights_weigh_pairs():
    q, k = draw(4, 3), draw(4, 3, seed=1)
    weights = torch.tensor([0.5, 1.5, 0.0, 2.0], dtype=torch.float64)
    logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / 0.3
    sides = [F.cross_entropy(x, torch.arange(4), reduction="none") for x in (logits, logits.T)]
    want = ((sides[0] + sides[1]) * weights).mean() / 2
    got = info_nce(q, k, temperature=0.3, weights=weights)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    assert_gradients(got, [q, k], list(torch.autograd.grad(want, [q, k])))
    assert info_nce(q, k, weights=torch.ones(4)) == info_nce(q, k)
    assert nt_xent(q, k) > 0


def test_wrong_arguments_are_named():
    z = torch.ones(4, 3)
    with pytest.raises(ValueError, match="symmetric=False"):
        info_nce(z, z, hard=torch.ones(4, 2, 3))
    with pytest.raises(ValueError, match=r"1\.\.4"):
        hardest(z, z, count=5)
