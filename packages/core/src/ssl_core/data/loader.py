"""Batches on the device, decoded ahead of time, the same for any number of workers."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ssl_core.batch import Batch, Reader, Source
from ssl_core.data.cache import SampleCache
from ssl_core.data.collate import collate
from ssl_core.data.corrupt import CorruptLog
from ssl_core.data.device import ahead_on_device, pinned
from ssl_core.data.fetch import Fetcher, Item
from ssl_core.data.processes import ProcessPool
from ssl_core.data.stream import Stream
from ssl_core.errors import UserError, unknown

CHUNK = 8
"""Rows decoded by one task: small enough to share out evenly, large enough to pay the hand-over."""


@dataclass(frozen=True)
class _Work:
    """A batch on its way: what the cache had, the rows still missing, the tasks that get them."""

    step: int
    seen: int
    ids: np.ndarray
    items: list[Item | None]
    missing: list[tuple[int, int]] = field(default_factory=list)
    tasks: list[tuple[list[int], Future[list[Item]]]] = field(default_factory=list)


class Loader:
    """Reads, decodes, collates and moves the batches of a stream.

    Arguments:
        source, reader: what to read and how to decode it.
        stream: which rows each step takes; its length is the source's.
        device: where batches go; CUDA batches are copied from pinned memory beside the training.
        workers: decoding threads or processes; 0 decodes in the calling thread.
        worker_kind: "thread" (decoders that release the GIL) or "process".
        cache: keep decoded samples: "auto" if all fit in `cache_bytes` (shared out over the
            ranks), "memory" as many as fit, "none".
        max_corrupt: share of corrupt samples above which `TrainingAborted` is raised.
        corrupt_log: where corrupt records are written down (`corrupt.jsonl`), or None.
        prefetch: batches prepared ahead.

    Batches are a pure function of source, stream and step: worker count, worker kind, cache and
    the step one starts from change nothing. A corrupt sample's row gets the label, key and index
    of its replacement and keeps its own id. Nobody may write into `Batch.data` in place.

    `wait_seconds` adds up the time `next` spent waiting for data, `corrupt` counts the distinct
    corrupt records.
    """

    def __init__(
        self,
        source: Source,
        reader: Reader,
        stream: Stream,
        *,
        device: torch.device | str = "cpu",
        workers: int = 2,
        worker_kind: Literal["thread", "process"] = "thread",
        cache: Literal["auto", "memory", "none"] = "auto",
        cache_bytes: int = 2 * 1024**3,
        max_corrupt: float = 0.05,
        corrupt_log: Path | None = None,
        prefetch: int = 2,
    ) -> None:
        if stream.length != len(source):
            raise UserError(
                f"stream: made for {stream.length} records, the source has {len(source)}"
            )
        if workers < 0:
            raise UserError(f"workers: {workers}; use 0 or more")
        for name, value, allowed in (
            ("worker_kind", worker_kind, ("thread", "process")),
            ("cache", cache, ("auto", "memory", "none")),
        ):
            if value not in allowed:
                raise unknown(name, value, allowed)
        self.source, self.reader, self.stream = source, reader, stream
        self.device = torch.device(device)
        self.workers = workers
        self.prefetch = max(prefetch, 1)
        self.wait_seconds = 0.0
        self._fetcher = Fetcher(source, reader, seed=stream.seed, max_corrupt=max_corrupt)
        # What a drawing reader decodes is another part each time: there is nothing to keep.
        cache = "none" if self._fetcher.draws else cache
        self._cache = SampleCache(len(source), kind=cache, max_bytes=cache_bytes // stream.world)
        self._log = CorruptLog(corrupt_log, length=len(source), max_corrupt=max_corrupt)
        self._processes: ProcessPool | None = None
        if worker_kind == "process" and workers:
            self._processes = ProcessPool(self._fetcher, workers)

    @property
    def corrupt(self) -> int:
        """Distinct corrupt records met so far."""
        return len(self._log)

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """The batches of steps `start_step` to `stop_step - 1`, all micro-batches of each."""
        places = (
            (step, micro)
            for step in range(start_step, stop_step)
            for micro in range(self.stream.accumulate)
        )
        made = self._inline(places) if self.workers == 0 else self._ahead(places)
        if self.device.type == "cuda":
            made = ahead_on_device(made, self.device)
        return self._timed(made)

    def _timed(self, batches: Generator[Batch, None, None]) -> Iterator[Batch]:
        try:
            while True:
                start = time.perf_counter()
                batch = next(batches, None)
                self.wait_seconds += time.perf_counter() - start
                if batch is None:
                    return
                yield batch
        finally:
            batches.close()

    def _inline(self, places: Iterable[tuple[int, int]]) -> Generator[Batch, None, None]:
        for step, micro in places:
            work = self._plan(step, micro)
            for row, at in work.missing:
                work.items[row] = self._fetcher.fetch(at, int(work.ids[row]))
            yield self._assemble(work)

    def _ahead(self, places: Iterator[tuple[int, int]]) -> Generator[Batch, None, None]:
        """Keeps workers busy with the next batches; hands them out in order."""
        cuda = self.device.type == "cuda"
        # Enough batches that every worker has a task and another one waiting.
        depth = max(self.prefetch, math.ceil(2 * CHUNK * self.workers / self.stream.micro_size))
        decoders = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        assembler = ThreadPoolExecutor(1, thread_name_prefix="assemble") if cuda else None
        waiting: deque[Callable[[], Batch]] = deque()
        try:
            for place in places:
                work = self._plan(*place)
                self._hand_out(work, decoders)
                if assembler is None:
                    waiting.append(partial(self._assemble, work))
                else:
                    waiting.append(assembler.submit(self._assemble, work, pin=True).result)
                if len(waiting) > depth:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
        finally:
            for pool in (assembler, decoders):
                if pool is not None:
                    pool.shutdown(cancel_futures=True)

    def _plan(self, step: int, micro: int) -> _Work:
        """The rows of a micro-batch, with what the cache holds already in place."""
        index, ids = self.stream.rows(step, micro)
        work = _Work(step, self.stream.seen(step, micro), ids, [None] * len(ids))
        for row, wanted in enumerate(index.tolist()):
            at, failures = self._fetcher.resolve(wanted)
            item = self._cache.get(at)
            if item is None:
                work.missing.append((row, wanted))
            else:
                work.items[row] = replace(item, failures=failures) if failures else item
        return work

    def _hand_out(self, work: _Work, decoders: ThreadPoolExecutor) -> None:
        """Gives the missing rows to the workers, a few at a time."""
        fetch = self._fetcher.fetch_all if self._processes is None else self._processes.fetch_all
        chunk = max(1, min(CHUNK, math.ceil(len(work.missing) / self.workers)))
        for part in [work.missing[i : i + chunk] for i in range(0, len(work.missing), chunk)]:
            ids = [int(work.ids[row]) for row, _ in part]
            task = decoders.submit(fetch, [wanted for _, wanted in part], ids)
            work.tasks.append(([row for row, _ in part], task))

    def _assemble(self, work: _Work, *, pin: bool = False) -> Batch:
        """The finished batch in CPU memory; remembers its samples and its failures."""
        for rows, task in work.tasks:
            for row, item in zip(rows, task.result(), strict=True):
                work.items[row] = item
        items = [item for item in work.items if item is not None]
        assert len(items) == len(work.ids)
        for row, _ in work.missing:
            self._cache.put(items[row])
            self._fetcher.remember(items[row].failures)  # what a worker process found out
        self._log.note(items, step=work.step, seen=work.seen)
        labelled = self.source.classes is not None
        batch = collate(items, work.ids, self.reader, labelled=labelled)
        return pinned(batch) if pin else batch

    def close(self) -> None:
        """Ends worker processes. A loader that is garbage-collected is closed, too."""
        if self._processes is not None:
            self._processes.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
