"""The loader: the same batches for any workers, cache and start, and corrupt samples replaced."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from readers import DecodingReader
from ssl_core.batch import Batch, Record
from ssl_core.data import ArraySource, Failure, Loader, Stream, decode_all
from ssl_core.errors import CorruptSample, UserError
from ssl_core.rng import shuffled


class ListReader(DecodingReader):
    """Numbers to tensors of as many entries modulo five; negative numbers cannot be read."""

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


def decoding_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("decode", "assemble"))]


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
    assert decoding_threads() == []


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
    assert decoding_threads() == []


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
