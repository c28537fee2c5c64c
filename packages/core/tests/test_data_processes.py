"""Worker processes: equal to threads, deaf to signals, replaced when they die."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.data import ArraySource, Loader, Stream, processes, wire
from ssl_core.data.fetch import Fetcher
from ssl_core.data.processes import ProcessPool, WorkerDied
from ssl_core.errors import UserError

READER = """
import os
from pathlib import Path

import torch

from ssl_core.errors import CorruptSample, UserError


class Reader:
    spec = {}

    def __init__(self, folder):
        self.folder = folder

    def decode(self, record):
        value = int(record.payload)
        print("a decoder that talks", flush=True)
        if value < 0:
            raise CorruptSample("negative")
        if value == 901:
            raise UserError("install the codec")
        if value == 902:
            os.kill(os.getpid(), 9)
        if value == 903:
            (Path(self.folder) / f"died{os.getpid()}").touch()
            if len(list(Path(self.folder).glob("died*"))) == 1:
                os.kill(os.getpid(), 9)
        if value == 904:
            return lambda: None
        return {"x": torch.full((value % 4 + 1, 2), value), "threads": torch.get_num_threads()}

    def collate(self, samples):
        return [sample["x"] for sample in samples]
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A reader in a module that other processes can import."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "a_reader_of_numbers.py").write_text(READER)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("a_reader_of_numbers")
    finally:
        sys.path.remove(str(folder))
        del sys.modules["a_reader_of_numbers"]


@pytest.fixture
def pool_of(module: ModuleType, tmp_path: Path) -> Iterator[Any]:
    pools = []

    def make(values: list[int], count: int = 1) -> ProcessPool:
        pools.append(ProcessPool(Fetcher(ArraySource(values), module.Reader(tmp_path)), count))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def test_processes_give_the_batches_of_threads(module: ModuleType, tmp_path: Path) -> None:
    """Also when one of them is killed on the way."""
    values = np.arange(1, 41)
    values[[4, 9]] *= -1
    source = ArraySource(values, values % 2)

    def run(kind: Literal["thread", "process"], workers: int) -> tuple[list[Batch], str]:
        log = tmp_path / f"{kind}.jsonl"
        with Loader(
            source,
            module.Reader(tmp_path),
            Stream(40, 8, seed=2),
            workers=workers,
            worker_kind=kind,
            cache="none",
            max_corrupt=0.5,
            corrupt_log=log,
        ) as loader:
            batches = list(loader.batches(1, 4))
            if loader._processes is not None:
                os.kill(loader._processes.pids[0], signal.SIGKILL)
            batches += loader.batches(4, 8)
        return batches, log.read_text()

    (threads, thread_log), (others, process_log) = run("thread", 1), run("process", 2)
    assert thread_log == process_log
    assert len(threads) == 7
    for a, b in zip(threads, others, strict=True):
        assert a.ids.tolist() == b.ids.tolist()
        assert (a.index.tolist(), a.keys) == (b.index.tolist(), b.keys)
        assert a.label is not None
        assert b.label is not None
        assert a.label.tolist() == b.label.tolist()
        assert all(torch.equal(x, y) for x, y in zip(a.data, b.data, strict=True))


def test_a_worker_survives_what_its_task_raises_and_signals(pool_of: Any) -> None:
    pool = pool_of([7, 901, 904, 8])
    assert [item.key for item in pool.fetch_all([0, 3])] == ["0", "3"]
    pid = pool.pids
    with pytest.raises(UserError, match="install the codec"):
        pool.fetch_all([1])
    with pytest.raises(Exception, match=r"pickle|local object"):
        pool.fetch_all([2])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid[0], number)
    sample = pool.fetch_all([3])[0].sample
    assert sample["x"].tolist() == [[8, 8]]
    assert sample["threads"] == 1
    assert pool.pids == pid
    assert os.getpgid(pid[0]) != os.getpgid(0)


def test_a_task_whose_worker_dies_is_done_again(pool_of: Any) -> None:
    pool = pool_of([5, 903])
    (item,) = pool.fetch_all([1])
    assert item.sample["x"].tolist() == [[903, 903]] * 4


def test_a_record_that_kills_every_worker_is_named(
    pool_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "RESTARTS", 1)
    pool = pool_of([5, 902])
    with pytest.raises(WorkerDied, match=r"exit code -9\) while decoding rows \[1\]"):
        pool.fetch_all([1])


def test_closing_or_forgetting_a_pool_ends_its_processes(
    module: ModuleType, tmp_path: Path
) -> None:
    pool = ProcessPool(Fetcher(ArraySource([5, 6]), module.Reader(tmp_path)), 1)
    pool.fetch_all([0])
    (pid,) = pool.pids
    pool.close()
    _wait_until_gone(pid)
    assert pool.pids == []
    assert pool.fetch_all([1])[0].sample["x"][0, 0] == 6  # started anew
    (pid,) = pool.pids
    del pool
    _wait_until_gone(pid)


def _wait_until_gone(pid: int) -> None:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} is still there")


def test_readers_that_workers_cannot_get_are_user_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_up = ModuleType("a_module_without_a_file")
    exec("class Reader: pass", made_up.__dict__)
    monkeypatch.setitem(sys.modules, made_up.__name__, made_up)

    class Local:
        pass

    with pytest.raises(UserError, match="can be pickled"):
        ProcessPool(Fetcher(ArraySource([5]), Local()), 1)  # type: ignore[arg-type]
    pool = ProcessPool(Fetcher(ArraySource([5]), made_up.Reader()), 1)
    try:
        with pytest.raises(UserError, match="cannot import the source or the reader"):
            pool.fetch_all([0])
    finally:
        pool.close()


# -- the wire --------------------------------------------------------------------------------


def echoed(message: Any) -> Any:
    raw = io.BytesIO()
    writer = io.BufferedWriter(raw)  # type: ignore[arg-type]
    wire.send(writer, message)
    reader = io.BufferedReader(io.BytesIO(raw.getvalue()))  # type: ignore[arg-type]
    return wire.receive(reader)


@pytest.mark.parametrize(
    "dtype",
    [
        *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
    ],
)
def test_tensors_arrive_equal_and_writable(dtype: torch.dtype) -> None:
    sent = torch.arange(24).reshape(4, 6).to(dtype)
    for tensor in (sent, sent.t(), sent[1:3, ::2], sent[0, 0], sent[:0], sent[:, :1]):
        got = echoed({"x": [tensor]})["x"][0]
        assert got.dtype == dtype
        assert torch.equal(got, tensor)
        got.zero_()  # a read-only buffer would warn or crash here
    assert not torch.equal(sent, torch.zeros_like(sent))


def test_other_things_arrive_too() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    got = echoed(({"a": np.arange(5)}, "word", b"bytes", None, parameter, torch.Size([3])))
    assert got[0]["a"].tolist() == [0, 1, 2, 3, 4]
    assert got[1:4] == ("word", b"bytes", None)
    assert isinstance(got[4], torch.nn.Parameter)
    assert got[5] == torch.Size([3])


def test_a_closed_pipe_is_the_end() -> None:
    for data in (b"", b"\1\0\0"):
        with pytest.raises(EOFError):
            wire.receive(io.BufferedReader(io.BytesIO(data)))  # type: ignore[arg-type]
