"""Batches of records of similar length, without giving up the step as the only cursor."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from ssl_core.batch import Source
from ssl_core.data.stream import Stream
from ssl_core.errors import UserError
from ssl_core.rng import shuffled


@dataclass(frozen=True)
class BucketedStream(Stream):
    """A stream whose batches hold records of similar length.

    The order of the plain stream is cut into windows of `window` batches; within each, records are
    sorted by `lengths` (equal ones keep their random order), cut into batches again, and these put
    into a keyed order. Every record is met as often as before, and a step's rows are still a
    function of the step: the window it lies in is worked out anew where it is needed. Ranks and
    micro-batches share out a batch's lengths evenly.
    """

    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)
    window: int = 50
    _last: dict[int, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def of(cls, stream: Stream, source: Source, *, window: int) -> Self:
        """`stream` by the lengths of its source; `UserError` where the source knows none."""
        lengths = getattr(source, "lengths", None)
        if lengths is None:
            raise UserError("data.buckets: this data does not tell the lengths of its records")
        plain: dict[str, Any] = {f.name: getattr(stream, f.name) for f in fields(Stream)}
        return cls(**plain, lengths=np.asarray(lengths), window=window)

    def rows(self, step: int, micro: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As in the plain stream."""
        index, ids = self._window(step // self.window)
        start = (step % self.window) * self.batch_size
        start += (self.rank * self.accumulate + micro) * self.micro_size
        part = slice(start, start + self.micro_size)
        return index[part], ids[part]

    def _window(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and ids of a whole window, int64 `[window * batch_size]`; the newest is kept."""
        if number not in self._last:
            size = self.window * self.batch_size
            index, ids = Stream(self.length, size, self.seed).rows(number)
            order = np.argsort(self.lengths[index], kind="stable")
            batches = order.reshape(self.window, self.batch_size)
            place = shuffled(np.arange(self.window), self.window, "buckets", self.seed, number)
            parts = self.batch_size // self.micro_size
            # Part p takes every parts-th record, so that no rank gets all the long ones.
            dealt = batches[place].reshape(self.window, self.micro_size, parts)
            order = dealt.transpose(0, 2, 1).reshape(-1)
            self._last.clear()
            self._last[number] = index[order], ids[order]
        return self._last[number]
