"""What could not be read: written down once a record, and too much of it ends the run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from ssl_core.data.fetch import Failure, Item
from ssl_core.errors import TrainingAborted

MIN_SEEN = 20
"""Samples that must have been seen before a share of corrupt ones means anything."""


class CorruptLog:
    """Appends to `corrupt.jsonl` and raises `TrainingAborted` above a share `max_corrupt`.

    Of the first few samples a larger share may be corrupt by chance. So until all `length` records
    were seen, the share must be exceeded by more than three standard deviations of drawing
    without replacement; once they were, it is exact.

    One line a record: key, reason, key of the replacement, step. A resumed run finds the keys
    already there and does not repeat them; several ranks may append to one file. Without a path
    the keys are kept in memory.
    """

    def __init__(self, path: Path | None, *, length: int, max_corrupt: float) -> None:
        self.path = path
        self.length = length
        self.max_corrupt = max_corrupt
        self.steps: dict[str, int] = {}
        self.reason = ""
        self._read = 0
        self._refresh()

    def __len__(self) -> int:
        """Distinct corrupt records so far, of earlier runs in this folder and of all ranks too."""
        return len(self.steps)

    def note(self, items: Sequence[Item], *, step: int, seen: int) -> None:
        """Records the failures behind one batch, after `seen` distinct samples of the stream."""
        fresh = {
            failure.key: (failure, item)
            for item in items
            for failure in item.failures
            if failure.key not in self.steps
        }
        if fresh:
            self._refresh()
            self._append([_line(*fresh[key], step) for key in fresh if key not in self.steps])
            for key in fresh:
                self.steps.setdefault(key, step)
                reason = fresh[key][0].reason  # many name the record themselves
                self.reason = reason if reason.startswith(key) else f"{key}: {reason}"
        if seen >= MIN_SEEN and len(self.steps) > self._allowed(seen):
            self._check(step, seen)

    def _check(self, step: int, seen: int) -> None:
        # A run that starts again from an earlier step finds entries of steps still to come.
        count = sum(met <= step for met in self.steps.values())
        if count > self._allowed(seen):
            where = f"; all are listed in {self.path}" if self.path else ""
            latest = f"; the latest is {self.reason}" if self.reason else ""
            raise TrainingAborted(
                f"data: {count} corrupt records were met in reading {seen} samples, more than "
                f"max_corrupt {self.max_corrupt:g} allows{latest}{where}"
            )

    def _allowed(self, seen: int) -> float:
        """How many of `seen` samples may be corrupt."""
        share = self.max_corrupt
        variance = seen * share * (1 - share) * (1 - seen / self.length)
        # The last term absorbs rounding: 29 of 100 are no more than 0.29.
        return seen * share + 3 * math.sqrt(max(variance, 0.0)) + 1e-9 * seen

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
                entry = json.loads(line)
                self.steps.setdefault(str(entry["key"]), int(entry.get("step", 0)))
            except (ValueError, KeyError, TypeError, AttributeError):
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
