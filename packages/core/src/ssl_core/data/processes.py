"""Worker processes for decoders that hold the GIL."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import queue
import subprocess
import sys
import weakref
from collections.abc import Sequence
from typing import Any, cast

from ssl_core.data import wire
from ssl_core.data.fetch import Fetcher, Item
from ssl_core.errors import SSLError, UserError

RESTARTS = 3
"""How often one task may see its worker die before the run gives up."""


class WorkerDied(SSLError):
    """Worker processes die again and again on the same records."""


class Worker:
    """One process and the pipes to it."""

    def __init__(self, fetcher: Fetcher) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        # Its own process group keeps the signals for the training's group away from it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ssl_core.data.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
            process_group=0,
        )
        # Pipes of a Popen without text mode are these; its type only says IO[bytes].
        self._questions = cast(io.BufferedWriter, self._process.stdin)
        self._answers = cast(io.BufferedReader, self._process.stdout)
        self._ready = False
        with contextlib.suppress(OSError):  # a dead worker is noticed by the first `ask`
            wire.send(self._questions, fetcher)

    def ask(self, indices: Sequence[int], ids: Sequence[int] | None = None) -> Any:
        """The worker's answer; raises `EOFError` or `OSError` when it is dead."""
        if not self._ready:
            self._answer()
            self._ready = True
        wire.send(self._questions, (list(indices), None if ids is None else list(ids)))
        return self._answer()

    def _answer(self) -> Any:
        kind, value = wire.receive(self._answers)
        if kind == "error":
            raise value
        return value

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def close(self) -> int:
        """Ends the process; returns its exit code."""
        self._process.kill()
        for pipe in (self._questions, self._answers):
            with contextlib.suppress(OSError):  # unsent bytes for a process that is gone
                pipe.close()
        return self._process.wait()


class ProcessPool:
    """Workers for the threads of a loader: `fetch_all` may be called from `count` of them.

    A worker that dies (killed for memory, crashed in a decoder) is replaced and its task done
    again, with equal results. `WorkerDied` is raised when that happens too often on one task.
    """

    def __init__(self, fetcher: Fetcher, count: int) -> None:
        try:
            pickle.dumps(fetcher)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(
                f"worker_kind: 'process' needs a source and a reader that can be pickled ({error});"
                " define them at the top level of a module, or use worker_kind 'thread'"
            ) from error
        self._fetcher = fetcher
        self._free: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(None)  # started by its first task
        self._workers: list[Worker] = []
        weakref.finalize(self, _close_all, self._workers)

    def fetch_all(self, indices: Sequence[int], ids: Sequence[int] | None = None) -> list[Item]:
        """The samples of several rows, in order, from whichever worker is free."""
        worker = self._free.get()
        try:
            for _ in range(RESTARTS):
                if worker is None:
                    worker = Worker(self._fetcher)
                    self._workers.append(worker)
                try:
                    items: list[Item] = worker.ask(indices, ids)
                    return items
                except (EOFError, BrokenPipeError, ConnectionError):
                    code = worker.close()
                    self._workers.remove(worker)
                    worker = None
            raise WorkerDied(
                f"workers: {RESTARTS} worker processes died one after another (the last with exit "
                f"code {code}) while decoding rows {list(indices)}; a decoder crashes on one of "
                "them, or the machine is out of memory"
            )
        finally:
            self._free.put(worker)

    @property
    def pids(self) -> list[int]:
        """The numbers of the running processes."""
        return [worker.pid for worker in self._workers]

    def close(self) -> None:
        """Ends all processes; a later task starts new ones."""
        for _ in range(self._free.qsize()):
            self._free.get()
            self._free.put(None)
        _close_all(self._workers)


def _close_all(workers: list[Worker]) -> None:
    while workers:
        workers.pop().close()
