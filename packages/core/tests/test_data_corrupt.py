"""Corrupt samples: replaced by rule, written down once, and too many of them end the run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from readers import DecodingReader
from ssl_core.batch import Batch, Record
from ssl_core.data import ArraySource, Failure, Loader, Stream
from ssl_core.data.fetch import Fetcher, Item
from ssl_core.errors import CorruptSample, TrainingAborted, UserError

BAD = (3, 17, 40, 41)


class NumberReader(DecodingReader):
    """Numbers to tensors; negative ones cannot be read."""

    def decode(self, record: Record) -> torch.Tensor:
        if record.payload < 0:
            raise CorruptSample("negative")
        return torch.tensor(float(record.payload))

    def collate(self, samples: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(samples))


def numbers(n: int, *, bad: Sequence[int] = ()) -> ArraySource:
    values = np.arange(n)
    values[list(bad)] *= -1
    return ArraySource(values, np.arange(n) % 3)


def run(source: ArraySource, steps: range, **arguments: Any) -> list[Batch]:
    stream = Stream(len(source), arguments.pop("batch_size", 8), seed=5)
    with Loader(source, NumberReader(), stream, **arguments) as loader:
        return list(loader.batches(steps.start, steps.stop))


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("workers", [0, 3])
def test_corrupt_samples_are_written_down_once(tmp_path: Path, workers: int) -> None:
    log = tmp_path / "run" / "corrupt.jsonl"
    source = numbers(53, bad=BAD)
    loader = Loader(
        source,
        NumberReader(),
        Stream(53, 8, seed=5),
        workers=workers,
        max_corrupt=0.5,
        corrupt_log=log,
    )
    batches = list(loader.batches(0, 20))
    found = entries(log)
    assert sorted(int(entry["key"]) for entry in found) == list(BAD)
    assert loader.corrupt == len(BAD)
    assert {entry["reason"] for entry in found} == {"negative"}
    for entry in found:
        batch = batches[entry["step"]]
        assert entry["replacement"] in batch.keys
        assert entry["key"] not in batch.keys
        first = np.concatenate(
            [Stream(53, 8, seed=5).rows(s)[0] for s in range(entry["step"])] or [[]]
        )
        direct = int(entry["key"]) in first
        assert not direct


def test_a_resumed_run_repeats_no_entry(tmp_path: Path) -> None:
    source = numbers(53, bad=BAD)

    def steps(path: Path, *parts: range) -> list[dict[str, Any]]:
        for part in parts:
            stream = Stream(53, 8, seed=5)
            loader = Loader(source, NumberReader(), stream, max_corrupt=0.5, corrupt_log=path)
            list(loader.batches(part.start, part.stop))
        assert loader.corrupt == len(BAD)
        return entries(path)

    whole = steps(tmp_path / "whole.jsonl", range(20))
    assert steps(tmp_path / "parts.jsonl", range(3), range(3, 9), range(5, 20)) == whole


def test_entries_of_steps_to_come_do_not_abort_a_run_that_starts_again(tmp_path: Path) -> None:
    log = tmp_path / "corrupt.jsonl"
    source = numbers(400, bad=range(1, 400, 20))
    for stop in (40, 40):
        stream = Stream(400, 20, seed=1)
        loader = Loader(source, NumberReader(), stream, max_corrupt=0.06, corrupt_log=log)
        assert len(list(loader.batches(0, stop))) == stop
    assert loader.corrupt == len(entries(log)) == 20


def test_a_torn_line_is_left_behind(tmp_path: Path) -> None:
    log = tmp_path / "corrupt.jsonl"
    source = numbers(53, bad=BAD)
    log.write_text(json.dumps({"key": "3"}) + '\n{"key": "1')
    stream = Stream(53, 8, seed=5)
    loader = Loader(source, NumberReader(), stream, max_corrupt=0.5, corrupt_log=log)
    list(loader.batches(0, 20))
    assert loader.corrupt == len(BAD)
    lines = log.read_text().splitlines()
    assert lines[1] == '{"key": "1'
    assert sorted(json.loads(line)["key"] for line in lines[2:]) == ["17", "40", "41"]


def test_ranks_share_one_log(tmp_path: Path) -> None:
    log = tmp_path / "corrupt.jsonl"
    source = numbers(53, bad=BAD)
    loaders = [
        Loader(
            source,
            NumberReader(),
            Stream(53, 8, seed=5, rank=rank, world=2),
            max_corrupt=0.5,
            corrupt_log=log,
        )
        for rank in range(2)
    ]
    streams = [loader.batches(0, 20) for loader in loaders]
    for _ in zip(*streams, strict=True):
        pass
    assert sorted(int(entry["key"]) for entry in entries(log)) == list(BAD)


def test_too_many_corrupt_samples_abort_at_the_same_step(tmp_path: Path) -> None:
    source = numbers(200, bad=list(range(1, 200, 3)))
    lasted = []
    for workers in (0, 2):
        log = tmp_path / f"{workers}.jsonl"
        loader = Loader(
            source,
            NumberReader(),
            Stream(200, 10),
            workers=workers,
            max_corrupt=0.1,
            corrupt_log=log,
        )
        batches = loader.batches(0, 20)
        lasted.append(_count_until_aborted(batches, r"0\.1 allows; .*negative; all are listed in"))
        assert len(entries(log)) > 0.1 * 20
    assert lasted[0] == lasted[1]
    assert 1 <= lasted[0] < 10  # at least 20 samples seen, long before all were


def _count_until_aborted(batches: Iterator[Batch], match: str) -> int:
    count = 0

    def go_on() -> None:
        nonlocal count
        for _ in batches:
            count += 1

    with pytest.raises(TrainingAborted, match=match):
        go_on()
    return count


def test_after_an_epoch_the_share_is_exact() -> None:
    """Of 100 records 6 are corrupt: by chance below 6 % at first, but not above 5 % for good."""
    source, stream = numbers(100, bad=range(1, 7)), Stream(100, 10)
    for share, aborts in ((0.05, True), (0.06, False)):
        loader = Loader(source, NumberReader(), stream, max_corrupt=share)
        if aborts:
            assert _count_until_aborted(loader.batches(0, 50), "6 corrupt records .* samples") < 10
        else:
            assert len(list(loader.batches(0, 50))) == 50


def test_a_share_allowed_does_not_abort() -> None:
    bad = list(range(1, 200, 5))
    assert len(run(numbers(200, bad=bad), range(60), max_corrupt=0.25)) == 60


def test_the_rate_counts_each_record_once() -> None:
    """Five epochs over a set with 4 of 100 corrupt stay below 5 %."""
    assert len(run(numbers(100, bad=[1, 2, 3, 4]), range(63), max_corrupt=0.05)) == 63


def test_all_corrupt_aborts_at_once() -> None:
    source = ArraySource(-np.arange(1, 8))
    for workers in (0, 2):
        with pytest.raises(TrainingAborted, match=r"7 records in a row are corrupt.*negative"):
            run(source, range(1), workers=workers, max_corrupt=1.0)


def test_one_good_record_among_many_is_found_when_that_is_allowed() -> None:
    source = ArraySource(np.array([-1, -2, 9, -4, -5, -6, -7, -8]))
    (batch,) = run(source, range(1), max_corrupt=1.0)
    assert batch.index.tolist() == [2] * 8
    assert len(set(batch.ids.tolist())) == 8


def test_chains_of_failures_are_as_long_as_the_share_makes_plausible() -> None:
    lengths = [Fetcher(numbers(9), NumberReader(), max_corrupt=m).attempts for m in (0.05, 0.5, 1)]
    assert lengths[0] < lengths[1] < lengths[2]
    assert 0.5 ** lengths[1] <= 1e-9 < 0.5 ** (lengths[1] - 1)


def test_any_exception_of_a_decoder_is_a_reason() -> None:
    class Clumsy(NumberReader):
        def decode(self, record: Record) -> torch.Tensor:
            if record.payload == 2:
                raise ValueError("bad header\nsecond line")
            if record.payload == 3:
                raise AssertionError
            return super().decode(record)

    fetcher = Fetcher(numbers(5), Clumsy())
    assert fetcher.decode(2) == Failure(2, "2", "ValueError: bad header")
    assert fetcher.decode(3) == Failure(3, "3", "AssertionError")
    found = fetcher.decode(4)
    assert isinstance(found, Item)
    assert (found.key, found.label) == ("4", 1)


def test_user_errors_of_a_decoder_are_not_corrupt_samples() -> None:
    class Missing(NumberReader):
        def decode(self, record: Record) -> torch.Tensor:
            raise UserError("install the codec")

    for workers in (0, 2):
        loader = Loader(numbers(5), Missing(), Stream(5, 2), workers=workers)
        with pytest.raises(UserError, match="install the codec"):
            next(loader.batches(0, 1))


def test_a_source_that_fails_is_named_by_its_row() -> None:
    class Failing(ArraySource):
        def __getitem__(self, index: int) -> Record:
            if index == 1:
                raise CorruptSample("shard damaged")
            return super().__getitem__(index)

    assert Fetcher(Failing([5, 6, 7]), NumberReader()).decode(1) == Failure(1, "1", "shard damaged")
