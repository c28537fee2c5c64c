"""A worker process: `python -m ssl_core.data.worker`, started by `processes.Worker`.

It takes a `Fetcher` from its standard input, then lists of rows and their ids, and answers each on
its standard output with the decoded items or the error. It ends when its input does, so it never
outlives the training, however that ends.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import traceback

import torch

from ssl_core.data import wire
from ssl_core.errors import UserError


def main() -> None:
    """Serves until the input ends."""
    # A launcher that stops a job may signal every process. The training saves first, and needs
    # its workers until then.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not end up among the answers
    try:
        _serve(questions, answers)
    except (EOFError, BrokenPipeError):
        # The training is gone or done; nothing is left to say, not even when closing.
        os._exit(0)


def _serve(questions: io.BufferedReader, answers: io.BufferedWriter) -> None:
    try:
        fetcher = wire.receive(questions)
    except EOFError:
        raise
    except Exception as error:
        _answer_error(answers, _not_importable(error))
        return
    wire.send(answers, ("ready", None))
    while True:
        rows, ids = wire.receive(questions)
        try:
            wire.send(answers, ("items", fetcher.fetch_all(rows, ids)))
        except BrokenPipeError:
            raise
        except Exception as error:
            _answer_error(answers, error)


def _not_importable(error: Exception) -> UserError:
    return UserError(
        f"worker_kind: a 'process' cannot import the source or the reader ({error}); define them "
        "in a module that is on the import path, or use worker_kind 'thread'"
    )


def _answer_error(answers: io.BufferedWriter, error: Exception) -> None:
    """Has the training raise what was raised here."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError("".join(traceback.format_exception(error)))
    wire.send(answers, ("error", error))


if __name__ == "__main__":
    main()
