"""The loader: the same batches for any workers, cache and start, and corrupt samples replaced."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from ssl_core.batch import Batch, Record
from ssl_core.data import ArraySource, Failure, Loader, Stream, decode_all
from ssl_core.data.cache import SampleCache, free_memory, nbytes
from ssl_core.data.fetch import Fetcher, Item
from ssl_core.errors import CorruptSample, TrainingAborted, UserError
from ssl_core.rng import shuffled


class ListReader:
    """Numbers to tensors of as many entries modulo five; negative numbers cannot be read."""

    spec: ClassVar[dict[str, Any]] = {}

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.decoded: list[str] = []

    def decode(self, record: Record) -> torch.Tensor:
        time.sleep(self.delay * (int(record.key) % 3))
        self.decoded.append(record.key)
        if record.payload < 0:
            raise CorruptSample("negative")
        return torch.full((int(record.payload) % 5 + 1,), float(record.payload))

    def collate(self, samples: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return list(samples)

    def raw(self, data: Any) -> torch.Tensor:
        raise NotImplementedError

    def save(self, folder: Any) -> None:
        raise NotImplementedError


def numbers(n: int, *, bad: Sequence[int] = ()) -> ArraySource:
    values = np.arange(n)
    values[list(bad)] *= -1
    return ArraySource(values, values % 3 if not len(bad) else np.arange(n) % 3)


def plain(batch: Batch) -> tuple[Any, ...]:
    label = None if batch.label is None else batch.label.tolist()
    data = [x.tolist() for x in batch.data]
    return data, batch.ids.tolist(), batch.index.tolist(), batch.keys, label


def run(source: ArraySource, steps: range, **arguments: Any) -> list[tuple[Any, ...]]:
    parts = {k: arguments.pop(k) for k in ("rank", "world", "accumulate") if k in arguments}
    reader = ListReader(arguments.pop("delay", 0.0))
    stream = Stream(len(source), arguments.pop("batch_size", 8), seed=5, **parts)
    with Loader(source, reader, stream, **arguments) as loader:
        return [plain(batch) for batch in loader.batches(steps.start, steps.stop)]


BAD = (3, 17, 40, 41)


@pytest.fixture(scope="module")
def reference() -> list[tuple[Any, ...]]:
    """Made by hand, without the loader."""
    source, stream = numbers(53, bad=BAD), Stream(53, 8, seed=5)
    batches = []
    for step in range(20):
        index, ids = stream.rows(step)
        rows = []
        for row in index.tolist():
            at, attempt = row, 0
            while at in BAD:
                attempt += 1
                at = int(shuffled(np.array([row]), 53, "replacement", 5, attempt)[0])
            rows.append(at)
        data = [[float(row)] * (row % 5 + 1) for row in rows]
        keys = tuple(str(row) for row in rows)
        batches.append((data, ids.tolist(), rows, keys, [row % 3 for row in rows]))
    assert source.classes == ["0", "1", "2"]
    return batches


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("cache", ["none", "memory", "auto"])
def test_workers_and_cache_change_nothing(workers: int, cache: str, reference: Any) -> None:
    source = numbers(53, bad=BAD)
    got = run(
        source, range(20), workers=workers, cache=cache, max_corrupt=0.5, delay=0.0005 * workers
    )
    assert got == reference


@pytest.mark.parametrize("start", [1, 7, 19])
def test_any_start_continues_the_same_batches(start: int, reference: Any) -> None:
    source = numbers(53, bad=BAD)
    assert run(source, range(start, 20), max_corrupt=0.5) == reference[start:]


def test_a_cache_too_small_for_all_changes_nothing(reference: Any) -> None:
    source = numbers(53, bad=BAD)
    for cache in ("memory", "auto"):
        got = run(source, range(20), cache=cache, cache_bytes=3000, max_corrupt=0.5)
        assert got == reference


def test_two_ranks_and_micro_batches_are_slices(reference: Any) -> None:
    source = numbers(53, bad=BAD)
    common = {"max_corrupt": 0.5, "world": 2, "accumulate": 2}
    ranks = [run(source, range(20), rank=rank, **common) for rank in range(2)]
    for step in range(20):
        parts = [rank[2 * step + micro] for rank in ranks for micro in range(2)]
        for field in range(5):
            joined = [value for part in parts for value in part[field]]
            assert joined == list(reference[step][field])


def test_batches_smaller_than_the_source_and_larger() -> None:
    source = numbers(3)
    got = run(source, range(2), batch_size=8)
    ids = [i for batch in got for i in batch[1]]
    assert len(set(ids)) == 16
    assert sorted(ids)[:3] == [0, 1, 2]
    assert got[0][0][0] == [float(got[0][2][0])] * (got[0][2][0] % 5 + 1)


def test_labels_are_none_only_for_unlabelled_sources() -> None:
    unlabelled = ArraySource(np.arange(5))
    assert next(iter(run(unlabelled, range(1))))[4] is None
    partly = ArraySource(np.arange(5), [None, 1, None, 1, None])
    (batch,) = run(partly, range(1), batch_size=5)
    assert batch[4] == [0 if i in (1, 3) else -1 for i in batch[2]]


def test_samples_are_decoded_once_where_they_fit() -> None:
    reader = ListReader()
    source = numbers(40)
    loader = Loader(source, reader, Stream(40, 8), workers=2, prefetch=1)
    list(loader.batches(0, 5))
    assert sorted(map(int, reader.decoded)) == list(range(40))
    list(loader.batches(5, 30))
    assert len(reader.decoded) == 40
    assert threading.active_count() == 1


def test_cached_batches_start_no_decoding_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader(numbers(16), ListReader(), Stream(16, 8), workers=2)
    list(loader.batches(0, 2))
    started: list[Any] = []
    monkeypatch.setattr(threading.Thread, "start", lambda self: started.append(self))
    assert len(list(loader.batches(2, 6))) == 4
    assert started == []


def test_waiting_is_measured() -> None:
    source = numbers(8)
    loader = Loader(source, ListReader(0.02), Stream(8, 8), workers=0, cache="none")
    list(loader.batches(0, 1))
    assert loader.wait_seconds >= 0.1  # keys modulo three: seven naps of 0.02 s
    before = loader.wait_seconds
    for _ in Loader(source, ListReader(), Stream(8, 8)).batches(0, 2):
        time.sleep(0.05)  # the training's own time does not count
    assert loader.wait_seconds == before


def test_leaving_early_ends_the_threads() -> None:
    loader = Loader(numbers(400), ListReader(0.001), Stream(400, 8), workers=3, cache="none")
    batches = loader.batches(0, 50)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == 1


def test_global_random_state_is_not_touched() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    run(numbers(53, bad=BAD), range(20), max_corrupt=0.5)
    list(decode_all(numbers(9), ListReader()))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_wrong_arguments_are_user_errors() -> None:
    with pytest.raises(UserError, match="made for 4 records, the source has 5"):
        Loader(numbers(5), ListReader(), Stream(4, 2))
    with pytest.raises(UserError, match="workers: -1"):
        Loader(numbers(5), ListReader(), Stream(5, 2), workers=-1)
    with pytest.raises(UserError, match="worker_kind: 'fibre'"):
        Loader(numbers(5), ListReader(), Stream(5, 2), worker_kind="fibre")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="cache: 'disk'"):
        Loader(numbers(5), ListReader(), Stream(5, 2), cache="disk")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_cuda_batches_equal_those_in_memory(workers: int, reference: Any) -> None:
    source = numbers(53, bad=BAD)
    got = run(source, range(20), workers=workers, device="cuda", max_corrupt=0.5)
    assert got == reference


# -- corrupt samples -------------------------------------------------------------------------


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("workers", [0, 3])
def test_corrupt_samples_are_written_down_once(tmp_path: Path, workers: int) -> None:
    log = tmp_path / "run" / "corrupt.jsonl"
    source = numbers(53, bad=BAD)
    loader = Loader(
        source,
        ListReader(),
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
            loader = Loader(source, ListReader(), stream, max_corrupt=0.5, corrupt_log=path)
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
        loader = Loader(source, ListReader(), stream, max_corrupt=0.06, corrupt_log=log)
        assert len(list(loader.batches(0, stop))) == stop
    assert loader.corrupt == len(entries(log)) == 20


def test_a_torn_line_is_left_behind(tmp_path: Path) -> None:
    log = tmp_path / "corrupt.jsonl"
    source = numbers(53, bad=BAD)
    log.write_text(json.dumps({"key": "3"}) + '\n{"key": "1')
    stream = Stream(53, 8, seed=5)
    loader = Loader(source, ListReader(), stream, max_corrupt=0.5, corrupt_log=log)
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
            ListReader(),
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
            ListReader(),
            Stream(200, 10),
            workers=workers,
            max_corrupt=0.1,
            corrupt_log=log,
        )
        batches = loader.batches(0, 20)
        lasted.append(_count_until_aborted(batches, r"0\.1; .*negative; all are listed in"))
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
        loader = Loader(source, ListReader(), stream, max_corrupt=share)
        if aborts:
            assert _count_until_aborted(loader.batches(0, 50), "6 of .* samples") < 10
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
    assert batch[2] == [2] * 8
    assert len(set(batch[1])) == 8


def test_chains_of_failures_are_as_long_as_the_share_makes_plausible() -> None:
    lengths = [Fetcher(numbers(9), ListReader(), max_corrupt=m).attempts for m in (0.05, 0.5, 1)]
    assert lengths[0] < lengths[1] < lengths[2]
    assert 0.5 ** lengths[1] <= 1e-9 < 0.5 ** (lengths[1] - 1)


def test_any_exception_of_a_decoder_is_a_reason() -> None:
    class Clumsy(ListReader):
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
    class Missing(ListReader):
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

    assert Fetcher(Failing([5, 6, 7]), ListReader()).decode(1) == Failure(1, "1", "shard damaged")


# -- decoding in order -----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_decode_all_keeps_order_and_reports_the_corrupt(workers: int) -> None:
    source = numbers(30, bad=[4, 5, 6, 7, 20])
    failures: list[Failure] = []
    batches = list(
        decode_all(
            source,
            ListReader(0.001),
            batch_size=4,
            workers=workers,
            on_corrupt=failures.append,
        )
    )
    index = torch.cat([batch.index for batch in batches]).tolist()
    assert index == [i for i in range(30) if i not in (4, 5, 6, 7, 20)]
    assert [f.index for f in failures] == [4, 5, 6, 7, 20]
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 3, 4, 2]
    for batch in batches:
        assert batch.ids.tolist() == batch.index.tolist()
        assert batch.keys == tuple(str(i) for i in batch.index.tolist())
        assert [float(x[0]) for x in batch.data] == batch.index.tolist()
        assert batch.label is not None
        assert batch.label.tolist() == [i % 3 for i in batch.index.tolist()]


def test_decode_all_takes_rows_and_logs_failures(caplog: pytest.LogCaptureFixture) -> None:
    source = numbers(30, bad=[4])
    with caplog.at_level("WARNING"):
        (batch,) = decode_all(source, ListReader(), [9, 4, 9, 0])
    assert batch.index.tolist() == [9, 9, 0]
    assert "4 is corrupt and left out: negative" in caplog.text
    assert list(decode_all(source, ListReader(), [])) == []


# -- the cache -------------------------------------------------------------------------------


def item(index: int, count: int) -> Item:
    return Item(index, str(index), None, torch.zeros(count, dtype=torch.uint8))


def test_auto_keeps_all_or_nothing() -> None:
    fits = SampleCache(1000, kind="auto", max_bytes=2_000_000)
    too_big = SampleCache(1000, kind="auto", max_bytes=500_000)
    for index in range(100):
        fits.put(item(index, 1000))
        too_big.put(item(index, 1000))
    assert len(fits) == 100
    assert len(too_big) == 0
    assert too_big.get(0) is None


def test_memory_keeps_what_fits() -> None:
    cache = SampleCache(1000, kind="memory", max_bytes=12_500)
    for index in range(100):
        cache.put(item(index, 1000))
    assert len(cache) == 10
    assert cache.bytes <= 12_500
    assert cache.get(0) is not None
    assert cache.get(50) is None


def test_sizes_of_samples() -> None:
    class Graph:
        def __init__(self) -> None:
            self.x = torch.zeros(1000)

    for sample in (
        torch.zeros(1000),
        np.zeros(500),
        {"a": torch.zeros(1000)},
        [torch.zeros(500), (torch.zeros(500),)],
        Graph(),
        bytes(4000),
    ):
        assert 4000 <= nbytes(sample) < 5500
    free = free_memory()
    assert free is None or free > 0
