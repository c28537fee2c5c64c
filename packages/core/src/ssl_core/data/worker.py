"""A worker process: `python -m ssl_core.data.worker`, started by `processes.ProcessPool`.

It takes import paths and a `Fetcher` from its standard input, then lists of rows, and answers each
on its standard output with the decoded items or the error. It ends when its input does, so it
never outlives the training, however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def main() -> None:
    """Serves until the input ends."""
    # A launcher that stops a job signals every process of the group. The training saves first,
    # and needs its workers until then.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a decoder prints must not end up among the answers

    import torch

    from ssl_core.data import wire

    torch.set_num_threads(1)
    source = os.fdopen(0, "rb", buffering=0)
    out = _Whole(answers)
    sys.path[:] = wire.receive(source)
    try:
        fetcher = wire.receive(source)
    except Exception as error:
        wire.send(out, error_reply(error))
        return
    wire.send(out, ("ready", None))
    while True:
        try:
            indices = wire.receive(source)
        except EOFError:
            return
        try:
            reply: tuple[str, Any] = ("items", fetcher.fetch_all(indices))
        except Exception as error:
            reply = error_reply(error)
        wire.send(out, reply)


def error_reply(error: Exception) -> tuple[str, Any]:
    """An answer that raises in the training what was raised here."""
    import pickle
    import traceback

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError("".join(traceback.format_exception(error)))
    return "error", error


class _Whole:
    """A raw stream whose `write` writes everything."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, data: Any) -> int:
        view = memoryview(data)
        done = 0
        while done < view.nbytes:
            done += self._stream.write(view[done:])
        return done

    def flush(self) -> None:
        self._stream.flush()


if __name__ == "__main__":
    main()
