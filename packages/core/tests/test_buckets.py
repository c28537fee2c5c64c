"""Bucketed streams: every record once, similar lengths together, a pure function of the step."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.data import ArraySource, Stream
from ssl_core.data.buckets import BucketedStream
from ssl_core.errors import UserError

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
