"""Sinkhorn-Knopp: released code's values, balance, and both ways of passing over a batch."""

import importlib
from unittest import mock

import pytest
import torch

from reference import draw, golden
from ssl_core.objectives import sinkhorn
from ssl_core.objectives.sinkhorn_passes import blocks


def test_sinkhorn_equals_released_codes():
    """dinov2 sinkhorn_knopp_teacher and swav distributed_sinkhorn (facebookresearch)."""
    g = golden("dinov2/sinkhorn_cls")
    got = sinkhorn(g["in_teacher"], temperature=g["in_tau_t"].item())
    torch.testing.assert_close(got, g["out_targets"], rtol=1e-10, atol=1e-14)
    g = golden("swav/sinkhorn_K_larger_than_B")
    torch.testing.assert_close(sinkhorn(g["in_scores"]), g["out_codes"], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_rows_are_taken_once_each_even_where_there_are_none(device):
    assert blocks(torch.empty(0, 8, device=device)) == []
    for rows in (1, 5, 70_000):
        taken = [
            i for block in blocks(torch.empty(rows, 8, device=device)) for i in range(rows)[block]
        ]
        assert taken == list(range(rows))
    assert sinkhorn(torch.empty(0, 8)).shape == (0, 8)


def test_sinkhorn_balances():
    scores = draw(12, 4).detach()
    codes = sinkhorn(scores, temperature=0.5, iterations=200)
    torch.testing.assert_close(codes.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 3.0, dtype=torch.float64))
    uniform = sinkhorn(torch.zeros(6, 4))
    torch.testing.assert_close(uniform, torch.full((6, 4), 0.25))
    shifted = sinkhorn(scores + 50)  # a common shift, which exp alone would overflow on
    torch.testing.assert_close(shifted, sinkhorn(scores))


def test_impossible_settings_are_named():
    for settings in ({"iterations": 0}, {"temperature": 0.0}, {"temperature": -1.0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            sinkhorn(torch.zeros(2, 3), **settings)


# --- compiled loops -------------------------------------------------------------------------------


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch):
    """The compiled passes, which `sinkhorn` takes from here on."""
    pytest.importorskip("numba")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return importlib.import_module("ssl_core.objectives.sinkhorn_loops")


def scores(rows: int, prototypes: int, spread: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows + prototypes)
    return torch.randn(rows, prototypes, generator=generator) * spread


@pytest.mark.parametrize(
    "logits",
    [
        scores(1, 1),
        scores(3, 70, spread=0.1),
        scores(70, 3),
        scores(130, 257, spread=5.0),  # 2^-126 is passed many times
        torch.arange(40.0).repeat_interleave(5).reshape(20, 10),  # every row is the largest so far
    ],
    ids=["one", "wide", "tall", "far", "rising"],
)
def test_compiled_passes_equal_the_formulas_in_float64(loops, logits):
    q, scale = torch.empty_like(logits), 1.7
    mass, largest = loops.exponentiate(logits, scale, q)
    rows = logits.double()
    want = ((rows - rows.amax(1, keepdim=True)) * scale).exp2()
    torch.testing.assert_close(q.double(), want, rtol=2e-5, atol=2e-38)
    want_mass = ((rows - rows.max()) * scale).exp2().sum(0)
    torch.testing.assert_close(mass.double(), want_mass, rtol=2e-5, atol=1e-36)
    assert largest.item() == pytest.approx(rows.max().item() * scale, rel=1e-6)

    v = torch.rand(logits.shape[1], generator=torch.Generator().manual_seed(0)) + 0.1
    u = 1 / (q.double() @ v.double())
    torch.testing.assert_close(loops.column_mass(q, v).double(), u @ q.double(), rtol=1e-5, atol=0)
    want = u[:, None] * q.double() * v.double()
    loops.normalise_(q, v)
    torch.testing.assert_close(q.double(), want, rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_assignments_are_the_same_either_way(loops, monkeypatch, spread):
    logits = scores(96, 300, spread)
    calls = mock.Mock(wraps=loops.exponentiate)
    monkeypatch.setattr(loops, "exponentiate", calls)
    buffer = logits.clone()
    assert sinkhorn(buffer, out=buffer) is buffer  # in place
    assert calls.called
    monkeypatch.setenv("SSL_COMPILED", "0")
    torch.testing.assert_close(buffer, sinkhorn(logits), rtol=5e-5, atol=1e-12)


@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf])
def test_what_is_not_finite_stays_so_either_way(loops, monkeypatch, bad):
    logits = scores(6, 40)
    logits[2, 5] = bad
    assert not sinkhorn(logits).isfinite().any()
    monkeypatch.setenv("SSL_COMPILED", "0")
    assert not sinkhorn(logits).isfinite().any()


def test_a_prototype_that_no_sample_may_have_gets_none_either_way(loops, monkeypatch):
    logits = scores(6, 40)
    logits[:, 7] = -torch.inf
    compiled = sinkhorn(logits)
    assert compiled[:, 7].eq(0).all()
    monkeypatch.setenv("SSL_COMPILED", "0")
    torch.testing.assert_close(compiled, sinkhorn(logits))


def test_other_memory_and_more_threads_go_by_torch(loops, monkeypatch):
    monkeypatch.setattr(loops, "exponentiate", None)  # would fail
    logits = scores(12, 20)
    want = sinkhorn(logits.double())
    turned = logits.T.contiguous().T
    torch.testing.assert_close(sinkhorn(turned).double(), want, rtol=1e-5, atol=1e-7)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    torch.testing.assert_close(sinkhorn(logits).double(), want, rtol=1e-5, atol=1e-7)
