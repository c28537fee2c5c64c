"""The order of samples: permutations, rank slices, and nothing but the step to remember."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.data.stream import Stream
from ssl_core.errors import UserError
from ssl_core.rng import shuffled


def collected(stream: Stream, steps: range) -> tuple[list[int], list[int]]:
    index, ids = [], []
    for step in steps:
        for micro in range(stream.accumulate):
            rows, keys = stream.rows(step, micro)
            index += rows.tolist()
            ids += keys.tolist()
    return index, ids


@pytest.mark.parametrize(("length", "batch"), [(100, 10), (97, 10), (7, 16), (1, 4), (64, 64)])
def test_every_epoch_is_its_own_permutation(length: int, batch: int) -> None:
    epochs = 5
    steps = -(-epochs * length // batch)
    index, ids = collected(Stream(length, batch, seed=3), range(steps))
    for epoch in range(epochs):
        part = index[epoch * length : (epoch + 1) * length]
        want = shuffled(np.arange(length), length, "order", 3, epoch).tolist()
        assert part == want
        assert sorted(part) == list(range(length))
        assert ids[epoch * length : (epoch + 1) * length] == [epoch * length + i for i in want]
    assert len(set(ids)) == len(ids)
    if length > 20:
        assert index[:length] != index[length : 2 * length]


@pytest.mark.parametrize(("length", "batch"), [(4097, 1000), (9000, 64), (5000, 5000)])
def test_rows_are_those_of_the_permutation_itself(length: int, batch: int) -> None:
    """Which is worked out a part at a time, whatever the batches take of it."""
    stream = Stream(length, batch, seed=3)
    epochs = [shuffled(np.arange(length), length, "order", 3, epoch) for epoch in range(6)]
    for step in (0, 4, length // batch, 2 * length // batch, 1):
        index, ids = stream.rows(step)
        places = np.arange(step * batch, (step + 1) * batch)
        assert np.array_equal(index, np.concatenate(epochs)[places])
        assert np.array_equal(ids, places // length * length + index)


def test_any_step_can_be_asked_alone() -> None:
    stream = Stream(50, 8, seed=1)
    whole = [stream.rows(step) for step in range(40)]
    for step in (39, 0, 17):
        for a, b in zip(Stream(50, 8, seed=1).rows(step), whole[step], strict=True):
            assert np.array_equal(a, b)
            assert a.dtype == np.int64
    assert np.array_equal(Stream(50, 8).rows(10**12)[0] >= 0, [True] * 8)


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (1, 3), (2, 3), (6, 2)])
def test_ranks_and_micro_batches_join_to_the_batch(world: int, accumulate: int) -> None:
    whole = Stream(31, 12, seed=9)
    parts = [
        Stream(31, 12, seed=9, rank=rank, world=world, accumulate=accumulate)
        for rank in range(world)
    ]
    for step in range(10):
        index, ids = whole.rows(step)
        joined = [part.rows(step, micro) for part in parts for micro in range(accumulate)]
        assert all(len(rows) == part.micro_size for part in parts for rows in part.rows(step))
        assert np.array_equal(np.concatenate([rows for rows, _ in joined]), index)
        assert np.array_equal(np.concatenate([keys for _, keys in joined]), ids)


def test_seed_changes_the_order_only() -> None:
    a, b = (collected(Stream(200, 20, seed=seed), range(10))[0] for seed in (0, 1))
    assert a != b
    assert sorted(a) == sorted(b)


def test_seen_counts_distinct_rows_of_all_ranks() -> None:
    stream = Stream(100, 12, rank=1, world=2, accumulate=3)
    assert [stream.seen(0, micro) for micro in range(3)] == [4, 8, 12]
    assert stream.seen(1, 0) == 16
    assert stream.seen(8, 0) == 100
    assert stream.steps_per_epoch == pytest.approx(100 / 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0, "batch_size": 2}, "no records"),
        ({"length": 9, "batch_size": 5, "world": 2}, "multiple of 2"),
        ({"length": 9, "batch_size": 0}, "batch_size: 0"),
        ({"length": 9, "batch_size": 4, "world": 2, "rank": 2}, "rank: 2"),
    ],
)
def test_wrong_streams_say_what_is_wrong(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Stream(**arguments)
