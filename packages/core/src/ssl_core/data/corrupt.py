"""What could not be read: written down once a record, and too much of it ends the run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ssl_core.data.fetch import Failure, Item
from ssl_core.errors import TrainingAborted

MIN_SEEN = 20
"""Samples that must have been seen before a share of corrupt ones means anything."""


class CorruptLog:
    """Appends to `corrupt.jsonl` and raises `TrainingAborted` above a share `max_corrupt`.

    One line a record: key, reason, key of the replacement, step. A resumed run finds the keys
    already there and does not repeat them; several ranks may append to one file. Without a path
    the keys are kept in memory.
    """

    def __init__(self, path: Path | None, *, max_corrupt: float) -> None:
        self.path = path
        self.max_corrupt = max_corrupt
        self.keys: set[str] = set()
        self._read = 0
        self._refresh()

    def __len__(self) -> int:
        """Distinct corrupt records so far, of earlier runs in this folder and of all ranks too."""
        return len(self.keys)

    def note(self, items: Sequence[Item], *, step: int, seen: int) -> None:
        """Records the failures behind one batch, after `seen` distinct samples of the stream."""
        fresh = {
            failure.key: (failure, item)
            for item in items
            for failure in item.failures
            if failure.key not in self.keys
        }
        if not fresh:
            return
        self._refresh()
        lines = [_line(*pair, step) for key, pair in fresh.items() if key not in self.keys]
        self.keys |= fresh.keys()
        self._append(lines)
        first = next(iter(fresh.values()))[0]
        if seen >= MIN_SEEN and len(self.keys) > self.max_corrupt * seen:
            raise TrainingAborted(
                f"data: {len(self.keys)} of {seen} samples seen are corrupt, more than "
                f"max_corrupt {self.max_corrupt:g}; the latest is {first.key}: {first.reason}"
                + (f"; all are listed in {self.path}" if self.path else "")
            )

    def _refresh(self) -> None:
        """Takes in the lines that earlier runs and other ranks have written."""
        if self.path is None or not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        # A line cut short by a kill or still being written counts once it is whole.
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                self.keys.add(json.loads(line)["key"])
            except (ValueError, KeyError, TypeError):
                continue  # the remains of a line that a kill cut short

    def _append(self, lines: list[bytes]) -> None:
        """One write for all lines, so that ranks do not interleave within a line."""
        if self.path is None or not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            os.write(file, (b"\n" if torn else b"") + b"".join(lines))
            os.fsync(file)
        finally:
            os.close(file)


def _line(failure: Failure, item: Item, step: int) -> bytes:
    entry = {
        "key": failure.key,
        "reason": failure.reason,
        "replacement": item.key,
        "step": step,
    }
    return json.dumps(entry).encode() + b"\n"
