"""Bucketed streams: every record once, similar lengths together, a pure function of the step."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from ssl_core.data import ArraySource, Stream
from ssl_core.data.buckets import BucketedStream, even_cuts
from ssl_core.errors import UserError
from ssl_core.recipe import Data

LENGTHS = np.arange(1000) % 97


def bucketed(batch: int = 20, window: int = 10, **plain) -> BucketedStream:
    return BucketedStream(1000, batch, lengths=LENGTHS, window=window, **plain)


def test_every_window_holds_the_records_of_the_plain_stream():
    plain, sorted_ = Stream(1000, 20, seed=3), bucketed(seed=3)
    for window in range(6):  # the last one is in the second epoch
        steps = range(10 * window, 10 * window + 10)
        there = np.concatenate([np.stack(plain.rows(s), 1) for s in steps])
        here = np.concatenate([np.stack(sorted_.rows(s), 1) for s in steps])
        assert sorted(map(tuple, there)) == sorted(map(tuple, here))


def test_batches_are_narrow_and_in_no_order_of_length():
    stream = bucketed()
    means = []
    for step in range(10):
        lengths = LENGTHS[stream.rows(step)[0]]
        assert lengths.max() - lengths.min() <= 97 / 10 + 8
        means.append(lengths.mean())
    assert means != sorted(means)


def test_rows_depend_on_the_step_alone():
    first, other = bucketed(seed=1), bucketed(seed=1)
    forward = [first.rows(step) for step in range(25)]
    for step in (24, 3, 17, 9):
        for a, b in zip(forward[step], other.rows(step), strict=True):
            assert np.array_equal(a, b)


def test_ranks_share_out_a_batch_and_its_lengths():
    whole = bucketed()
    for world, accumulate in ((2, 1), (1, 4), (2, 2)):
        for step in (0, 7):
            parts = [
                bucketed(world=world, rank=rank, accumulate=accumulate).rows(step, micro)[0]
                for rank in range(world)
                for micro in range(accumulate)
            ]
            assert sorted(np.concatenate(parts)) == sorted(whole.rows(step)[0])
            means = [LENGTHS[part].mean() for part in parts]
            assert max(means) - min(means) <= 10 / 2 + 1


def test_a_source_without_lengths_is_the_users_error():
    with pytest.raises(UserError, match="does not tell the lengths"):
        BucketedStream.of(Stream(3, 1), ArraySource(["a", "b", "c"]), window=2)


# Even tokens ----------------------------------------------------------------------------------


def cost(widths: np.ndarray, cuts: tuple[int, ...]) -> int:
    return max((end - start) * widths[end - 1] for start, end in pairwise(cuts))


def test_cuts_are_the_cheapest_there_are():
    rng = np.random.default_rng(0)
    for groups, count in ((7, 3), (9, 4), (6, 6), (8, 1), (10, 2)):
        for _ in range(20):
            widths = np.sort(rng.integers(1, 12, groups))
            found = even_cuts(widths, count)
            assert found[0] == 0
            assert found[-1] == groups
            assert (np.diff(found) > 0).all()
            inner = combinations(range(1, groups), count - 1)
            best = min(cost(widths, (0, *cuts, groups)) for cuts in inner)
            assert cost(widths, tuple(found)) == best
    assert even_cuts(np.zeros(6), 3).tolist() == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="cannot be cut"):
        even_cuts(np.ones(2), 3)


def test_even_tokens_keep_the_records_and_cost_alike():
    plain, stream = Stream(1000, 20, seed=3), bucketed(seed=3, even="tokens")
    by_records = bucketed(seed=3)
    for window in range(6):
        steps = range(10 * window, 10 * window + 10)
        there = np.concatenate([np.stack(plain.rows(s), 1) for s in steps])
        here = [np.stack(stream.rows(s), 1) for s in steps]
        assert sorted(map(tuple, there)) == sorted(map(tuple, np.concatenate(here)))
        costs = [len(rows) * LENGTHS[rows[:, 0]].max() for rows in here]
        usual = [20 * LENGTHS[by_records.rows(s)[0]].max() for s in steps]
        assert max(costs) < 0.7 * max(usual)
        assert max(costs) < 1.4 * np.median(costs)
        assert {len(rows) for rows in here} != {20}


def test_even_tokens_are_shared_out_in_parts_of_one_size():
    for world, accumulate in ((2, 1), (1, 4), (2, 2)):
        shared = {"world": world, "accumulate": accumulate, "even": "tokens"}
        for step in (0, 7, 13):
            parts = [
                bucketed(rank=rank, **shared).rows(step, micro)[0]
                for rank in range(world)
                for micro in range(accumulate)
            ]
            assert len({len(part) for part in parts}) == 1
            means = [LENGTHS[part].mean() for part in parts]
            assert max(means) - min(means) <= 10 / 2 + 1
        first = bucketed(**shared)
        done = [first.seen(step, m) for step in range(12) for m in range(accumulate)]
        assert done == sorted(done)
        assert first.seen(9, accumulate - 1) == 200


def test_even_tokens_are_a_function_of_the_step_and_need_windows():
    first, other = bucketed(seed=1, even="tokens"), bucketed(seed=1, even="tokens")
    forward = [first.rows(step) for step in range(25)]
    for step in (24, 3, 17, 9):
        for a, b in zip(forward[step], other.rows(step), strict=True):
            assert np.array_equal(a, b)
    with pytest.raises(ValueError, match=r"needs data\.buckets"):
        Data(even="tokens")
