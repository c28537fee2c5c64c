"""Keyed random numbers: their distributions, their independence, and what must not change them."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import stats

from ssl_core import rng as rng_module
from ssl_core.rng import Rng, generator, key_of, shuffled

N = 20_000
P = 1e-4  # every check has fixed keys: it passes or fails for good


def keys(n: int = N, *, seed: int = 0, step: int = 0) -> Rng:
    return Rng.at(seed, step, torch.arange(n))


GOLDEN_KEYS = [-1866991269939030112, -7644433598666691591]
GOLDEN_INTEGERS = [920, 152]
GOLDEN_SHUFFLE = [1, 7, 0, 4, 6, 2, 3, 5]
GOLDEN_GENERATOR = [670, 226, 557]


# -- reference values ------------------------------------------------------------------------


def test_bits_are_splitmix64() -> None:
    """Steele, Lea & Flood 2014: state k gives the sequence mix(k + n * golden), n = 1, 2, ..."""
    mask = (1 << 64) - 1

    def splitmix(state: int, n: int) -> int:
        x = (state + n * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    assert splitmix(1234567, 1) == 6457827717110365317  # the generator's published first output
    rng = Rng(torch.tensor([0, 1234567, -5]))
    got = rng.bits("stream", 3)
    for row, state in enumerate(rng.fold("stream").key.tolist()):
        assert [v & mask for v in got[row].tolist()] == [splitmix(state, n) for n in (1, 2, 3)]


def test_golden_numbers_stay() -> None:
    """Saved runs repeat only while these numbers stay what they are."""
    rng = Rng.at(seed=3, step=5, ids=torch.tensor([0, 7])).fold("view", 1)
    assert rng.key.tolist() == GOLDEN_KEYS
    assert rng.integers("n", high=1000).tolist() == GOLDEN_INTEGERS
    assert shuffled(np.arange(8), 8, "order", 3).tolist() == GOLDEN_SHUFFLE
    assert generator("record", 4).integers(0, 1000, 3).tolist() == GOLDEN_GENERATOR


# -- distributions ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_uniform_over_samples_and_within_one(dtype: torch.dtype) -> None:
    across = keys().uniform("u", dtype=dtype)
    within = keys(1).uniform("u", N, dtype=dtype)[0]
    for draws in (across, within):
        assert draws.dtype == dtype
        assert 0 <= draws.min() < draws.max() < 1
        assert stats.kstest(draws.double().numpy(), "uniform").pvalue > P


def test_uniform_takes_bounds_per_sample() -> None:
    low, high = torch.arange(6.0)[:, None], torch.arange(6.0)[:, None] + 2
    draws = keys(6).uniform("u", 500, low=low, high=high)
    assert (draws >= low).all()
    assert (draws < high).all()
    unit = keys(6).uniform("u", 500)
    assert torch.equal(draws, low + (high - low) * unit)


def test_normal_is_normal() -> None:
    for draws in (keys().normal("z"), keys(1).normal("z", N)[0]):
        assert draws.isfinite().all()
        assert stats.kstest(draws.double().numpy(), "norm").pvalue > P
    assert keys(4).normal("z", dtype=torch.float64).dtype == torch.float64


def test_integers_hit_every_value_equally() -> None:
    draws = keys().integers("i", low=-3, high=14)
    counts = np.bincount(draws.numpy() + 3, minlength=17)
    assert len(counts) == 17
    assert stats.chisquare(counts).pvalue > P
    assert keys(50).integers("i", high=1).tolist() == [0] * 50
    top = keys(2000).integers("i", high=2**31 - 1)
    assert top.min() >= 0
    assert top.max() < 2**31 - 1
    assert top.double().mean() / 2**30 == pytest.approx(1, abs=0.1)


def test_bernoulli_has_its_probability() -> None:
    for p in (0.0, 0.1, 0.5, 1.0):
        hits = int(keys().bernoulli("b", p=p).sum())
        if p in (0.0, 1.0):
            assert hits == p * N
        else:
            assert stats.binomtest(hits, N, p).pvalue > P


def test_permutations_are_uniform() -> None:
    draws = keys(24_000).permutation("p", 4)
    assert torch.equal(draws.sort(dim=1).values, torch.arange(4).expand(24_000, 4))
    code = (draws * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = np.unique(code.numpy(), return_counts=True)[1]
    assert len(counts) == math.factorial(4)
    assert stats.chisquare(counts).pvalue > P
    assert keys(3).permutation("p", 1).tolist() == [[0]] * 3


def test_every_bit_is_fair() -> None:
    bits = keys(8192).bits("b")
    ones = torch.stack([(bits >> i) & 1 for i in range(64)]).sum(1).numpy()
    worst = np.abs(ones - 4096).max() / math.sqrt(8192 / 4)
    assert worst < 4.5  # 64 bits, each normal with this deviation


# -- independence ----------------------------------------------------------------------------


def variants() -> dict[str, Rng]:
    ids = torch.arange(N)
    return {
        "base": Rng.at(0, 0, ids).fold("view", 0),
        "seed": Rng.at(1, 0, ids).fold("view", 0),
        "step": Rng.at(0, 1, ids).fold("view", 0),
        "next id": Rng.at(0, 0, ids + 1).fold("view", 0),
        "far id": Rng.at(0, 0, ids + (1 << 40)).fold("view", 0),
        "view": Rng.at(0, 0, ids).fold("view", 1),
        "label": Rng.at(0, 0, ids).fold("crop", 0),
    }


@pytest.mark.parametrize("other", [name for name in variants() if name != "base"])
def test_keys_that_differ_in_one_part_are_independent(other: str) -> None:
    a, b = variants()["base"].uniform("u"), variants()[other].uniform("u")
    if other == "next id":  # the same sample must keep its numbers
        assert torch.equal(a[1:], b[:-1])
        return
    _independent(a, b)


def test_streams_counters_and_neighbours_are_independent() -> None:
    rng = keys()
    _independent(rng.uniform("a"), rng.uniform("b"))
    _independent(rng.uniform("a"), rng.fold("a").uniform("a"))
    two = rng.uniform("a", 2)
    _independent(two[:, 0], two[:, 1])
    _independent(two[:-1, 0], two[1:, 0])


def _independent(a: torch.Tensor, b: torch.Tensor) -> None:
    """Chi-square over a grid of 8 x 8 cells; sensitive to more than correlation."""
    table = np.histogram2d(a.numpy(), b.numpy(), bins=8, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.ravel()).pvalue > P


def test_labels_do_not_run_together() -> None:
    words = [("a", "b"), ("ab",), ("b", "a"), ("a", 0), (0, "a"), (0,), (0, 0), (1,), (-1,), ()]
    assert len({key_of(*labels) for labels in words}) == len(words)
    folded = {int(keys(1).fold(*labels).key[0]) for labels in words}
    assert len(folded) == len(words)
    assert len(set(keys(100_000).key.tolist())) == 100_000


def test_integer_and_tensor_labels_of_a_sample_agree_with_themselves() -> None:
    rng = keys(4)
    ids = torch.tensor([5, 6, 7, 8])
    whole = rng.fold(ids).uniform("u", 2)
    parts = torch.cat([rng[i : i + 1].fold(ids[i : i + 1]).uniform("u", 2) for i in range(4)])
    assert torch.equal(whole, parts)


# -- what must not matter --------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.bits("s", 3),
        lambda rng: rng.uniform("s", 2, 3),
        lambda rng: rng.normal("s", 5),
        lambda rng: rng.integers("s", high=10),
        lambda rng: rng.bernoulli("s", 4, p=0.3),
        lambda rng: rng.permutation("s", 7),
    ],
)
def test_any_split_of_a_batch_has_the_same_bits(draw) -> None:
    rng = keys(13)
    whole = draw(rng)
    for sizes in ([13], [1] * 13, [5, 8], [12, 1]):
        parts = [Rng(key) for key in rng.key.split(sizes)]
        assert torch.equal(whole, torch.cat([draw(part) for part in parts]))
        assert torch.equal(whole, draw(Rng.cat(parts)))
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole[order], draw(rng[order]))


def test_asking_again_and_more_gives_the_same_numbers() -> None:
    rng = keys(5)
    assert torch.equal(rng.uniform("a"), rng.uniform("a"))
    assert torch.equal(rng.bits("a", 3), rng.bits("a", 9)[:, :3])


def test_what_is_drawn_ahead_is_what_would_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = keys(7)
    draws = [
        lambda rng: rng.bits("a", 3),
        lambda rng: rng.uniform("a", 2, low=3.0, high=4.0),  # the first ones of three
        lambda rng: rng.uniform("b", dtype=torch.float64),
        lambda rng: rng.normal("c", 2, 2),
        lambda rng: rng.noise("c", 6),
        lambda rng: rng.integers("b", high=9),
        lambda rng: rng.bernoulli("a", 3, p=0.2),
        lambda rng: rng.permutation("c", 4),
        lambda rng: rng.bits("c", 5),  # more than there are
        lambda rng: rng.bits("another", 2),
        lambda rng: rng.fold("view", 1).bits("a", 3),  # other keys
        lambda rng: rng[torch.arange(3)].bits("a", 3),
        lambda rng: Rng.cat([rng, rng]).bits("a", 3),
    ]
    drawn = rng.ahead({"a": 3, "b": 1, "c": 4})
    for draw in [*draws, *draws]:  # nothing that was drawn is written to
        assert torch.equal(draw(drawn), draw(rng))
    mixed = mock.Mock(wraps=rng_module._mix)
    monkeypatch.setattr(rng_module, "_mix", mixed)
    draws[0](drawn), draws[2](drawn), draws[3](drawn)
    assert not mixed.called


def test_compiled_in_one_graph() -> None:
    def draw(key: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rng = Rng(key).fold("view", 2).fold(torch.arange(key.shape[0]))
        return (
            rng.bits("b", 2),
            rng.uniform("u", 3, low=-1.0, high=2.0),
            rng.normal("n", 2),
            rng.integers("i", high=9),
            rng.bernoulli("p", p=0.2),
            rng.permutation("o", 6),
            rng.ahead({"a": 2}).uniform("a", 2),
        )

    compiled = torch.compile(draw, fullgraph=True, backend="aot_eager")
    key = keys(6).key
    for got, want in zip(compiled(key), draw(key), strict=True):
        assert torch.equal(got, want)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_has_the_bits_of_the_cpu() -> None:
    here, there = keys(1000), Rng.at(0, 0, torch.arange(1000, device="cuda"))
    for draw in (
        lambda rng: rng.bits("b", 3),
        lambda rng: rng.uniform("u", 3),
        lambda rng: rng.integers("i", 2, high=77),
        lambda rng: rng.permutation("p", 50),
    ):
        assert torch.equal(draw(here), draw(there).cpu())
    torch.testing.assert_close(here.normal("n", 4), there.normal("n", 4).cpu())


def test_global_generators_are_not_touched() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    keys(9).normal("n")
    generator("a").normal()
    shuffled(np.arange(10), 10)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


# -- numpy side ------------------------------------------------------------------------------


def test_generator_is_a_function_of_its_labels() -> None:
    assert generator("a", 1).random(4).tolist() == generator("a", 1).random(4).tolist()
    draws = np.concatenate([generator("a", i).random(4) for i in range(2000)])
    assert stats.kstest(draws, "uniform").pvalue > P


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64, 65, 1000, 1_000_003])
def test_shuffled_is_a_bijection(n: int) -> None:
    out = shuffled(np.arange(n), n, "order", 0)
    assert out.dtype == np.int64
    assert np.array_equal(np.sort(out), np.arange(n))
    picks = np.arange(0, n, max(1, n // 7))
    assert np.array_equal(shuffled(picks, n, "order", 0), out[picks])


def test_shuffled_needs_no_memory_of_the_whole() -> None:
    n = 10**12 + 39
    out = shuffled(np.array([0, 1, n - 1]), n, "order")
    assert len(set(out.tolist())) == 3
    assert out.min() >= 0
    assert out.max() < n


def test_shuffled_orders_are_uniform_over_keys() -> None:
    """Every item equally often at every place, and every order of three equally often."""
    rows = np.stack([shuffled(np.arange(7), 7, "order", key) for key in range(3500)])
    for place in range(7):
        assert stats.chisquare(np.bincount(rows[:, place], minlength=7)).pvalue > P
    code = np.argsort(rows[:, :3], axis=1) @ np.array([9, 3, 1])
    assert stats.chisquare(np.unique(code, return_counts=True)[1]).pvalue > P


def test_shuffled_orders_of_two_epochs_are_unrelated() -> None:
    n = 5000
    first, second = (shuffled(np.arange(n), n, "order", epoch) for epoch in range(2))
    assert abs(stats.spearmanr(first, second).statistic) < 4 / math.sqrt(n)
    assert abs(stats.spearmanr(first[:-1], first[1:]).statistic) < 4 / math.sqrt(n)
    # A random permutation has one fixed point on average.
    assert (first == second).sum() <= 6


def test_shuffled_refuses_places_outside() -> None:
    for index in ([5], [-1]):
        with pytest.raises(ValueError, match="must lie in"):
            shuffled(np.array(index), 5)
    assert shuffled(np.array([], np.int64), 5).tolist() == []


def test_numbers_at_places_are_those_of_the_whole_draw():
    rng = Rng.at(3, 1, torch.arange(4))
    whole = rng.uniform("stream", 9, 5)
    rows, places = torch.tensor([0, 2, 2, 3]), torch.tensor([8, 0, 3, 7])
    assert torch.equal(rng.uniform_at("stream", rows, places, 5), whole[rows, places])
    assert torch.equal(rng.uniform_at("s", rows, places), rng.uniform("s", 9)[rows, places])


def test_grain_is_standard_normal_and_keyed() -> None:
    rng = Rng.at(0, 0, torch.arange(4))
    x = rng.grain("voxels", 50_001)
    assert (x.shape, x.dtype) == ((4, 50_001), torch.float32)
    for part in range(4):  # the quarters of a word
        own = x[:, part::4].double()
        assert own.mean().abs() < 0.01
        assert (own.std() - 1).abs() < 0.01
        assert (own.pow(4).mean() - 3).abs() < 0.1
    places = x.double().flatten().sort().values
    share = torch.arange(1, len(places) + 1) / len(places)
    assert (torch.special.ndtr(places) - share).abs().max() < 0.005
    assert (x[:, 0::4][:, :12_000] * x[:, 1::4][:, :12_000]).mean().abs() < 0.01
    assert torch.equal(x[2:], rng[2:].grain("voxels", 50_001))
    assert rng.grain("voxels", 3, 5).shape == (4, 3, 5)


def test_noise_is_standard_normal_in_both_coordinates() -> None:
    rng = Rng.at(0, 0, torch.arange(4))
    x = rng.noise("voxels", 50_001)
    assert x.shape == (4, 50_001)
    assert x.dtype == torch.float32
    for part in (x[:, :25_001], x[:, 25_001:]):
        assert part.mean().abs() < 0.01
        assert (part.std() - 1).abs() < 0.01
        assert (part.pow(4).mean() - 3).abs() < 0.1
    halves = x[:, :25_000] * x[:, 25_001:]
    assert halves.mean().abs() < 0.01, "the coordinates of a pair are uncorrelated"
    assert torch.equal(x[2:], rng[2:].noise("voxels", 50_001))
    assert rng.noise("voxels", 3, 5).shape == (4, 3, 5)
    assert x.isfinite().all()
