"""Batches of records of similar length, without giving up the step as the only cursor."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

import numpy as np

from ssl_core.batch import Source
from ssl_core.data.stream import Stream
from ssl_core.errors import UserError
from ssl_core.rng import shuffled

Even = Literal["records", "tokens"]


@dataclass(frozen=True)
class Window:
    """Rows and ids of so many batches, int64 `[R]`, and where each begins and the last ends."""

    index: np.ndarray
    ids: np.ndarray
    starts: np.ndarray


@dataclass(frozen=True)
class BucketedStream(Stream):
    """A stream whose batches hold records of similar length.

    The order of the plain stream is cut into windows of `window` batches; within each, records are
    sorted by `lengths` (equal ones keep their random order), cut into batches again, and these put
    into a keyed order. Every record is met as often as before, and a step's rows are still a
    function of the step: the window it lies in is worked out anew where it is needed. Ranks and
    micro-batches share out a batch's lengths evenly.

    With `even` "tokens" the cuts are where all batches of a window cost about as much, padding
    included: many short records or few long ones, `batch_size` on average.
    """

    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)
    window: int = 50
    even: Even = "records"
    _last: dict[int, Window] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, stream: Stream, source: Source, *, window: int, even: Even = "records") -> Self:
        """`stream` by the lengths of its source; `UserError` where the source knows none."""
        lengths = getattr(source, "lengths", None)
        if lengths is None:
            raise UserError("data.buckets: this data does not tell the lengths of its records")
        plain: dict[str, Any] = {f.name: getattr(stream, f.name) for f in fields(Stream)}
        return cls(**plain, lengths=np.asarray(lengths), window=window, even=even)

    @property
    def parts(self) -> int:
        """Ranks times micro-batches: into how many parts of one size each batch divides."""
        return self.world * self.accumulate

    def rows(self, step: int, micro: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As in the plain stream; with even tokens, as many rows as this step's batch has."""
        window = self._window(step // self.window)
        first, end = window.starts[step % self.window :][:2]
        size = (end - first) // self.parts
        start = first + (self.rank * self.accumulate + micro) * size
        return window.index[start : start + size], window.ids[start : start + size]

    def seen(self, step: int, micro: int = 0) -> int:
        """As in the plain stream."""
        first, end = self._window(step // self.window).starts[step % self.window :][:2]
        before = step // self.window * self.window * self.batch_size + first
        done = before + (micro + 1) * ((end - first) // self.accumulate)
        return min(self.length, int(done))

    def _window(self, number: int) -> Window:
        """A whole window; the newest is kept."""
        if number not in self._last:
            size = self.window * self.batch_size
            index, ids = Stream(self.length, size, self.seed).rows(number)
            order = np.argsort(self.lengths[index], kind="stable")
            # Neighbours in length go to different parts, so that no rank gets all the long ones.
            groups = order.reshape(-1, self.parts)
            cuts = self._cuts(self.lengths[index[groups[:, -1]]])
            place = shuffled(np.arange(self.window), self.window, "buckets", self.seed, number)
            batches = [groups[cuts[n] : cuts[n + 1]].T.reshape(-1) for n in place]
            starts = np.cumsum([0, *map(len, batches)])
            order = np.concatenate(batches)
            self._last.clear()
            self._last[number] = Window(index[order], ids[order], starts)
        return self._last[number]

    def _cuts(self, widths: np.ndarray) -> np.ndarray:
        """Where each batch begins among groups of one record a part, by their greatest lengths."""
        if self.even == "records":
            return np.arange(self.window + 1) * self.micro_size
        return even_cuts(widths, self.window)


def even_cuts(widths: np.ndarray, count: int) -> np.ndarray:
    """Cuts rising `widths` `[G]` into `count` runs, so that the dearest costs the least.

    A run costs its length times its last width: what it fills when padded. Returns the `count + 1`
    borders, int64, from 0 to G; no run is empty, so G must be at least `count`.
    """
    if not 1 <= count <= len(widths):
        raise ValueError(f"{len(widths)} groups cannot be cut into {count} runs")
    widths = np.maximum(np.asarray(widths, np.int64), 1)
    low, high = int(widths[-1]), int(widths[-1]) * -(-len(widths) // count)
    while low < high:
        budget = (low + high) // 2
        if len(_runs(widths, budget, count)) - 1 <= count:
            high = budget
        else:
            low = budget + 1
    cuts = _runs(widths, high, count)
    while len(cuts) <= count:  # equal widths may need fewer runs: the longest is cut in two
        longest = int(np.argmax(np.diff(cuts)))
        cuts.insert(longest + 1, (cuts[longest] + cuts[longest + 1] + 1) // 2)
    return np.array(cuts)


def _runs(widths: np.ndarray, budget: int, most: int) -> list[int]:
    """Borders of the longest runs that cost at most `budget` each, from the left; given up once
    there are more than `most`."""
    borders = [0]
    while borders[-1] < len(widths) and len(borders) <= most + 1:
        start = low = borders[-1]
        high = min(len(widths), start + budget // int(widths[start]))
        while low < high:  # cost rises with the end, so the last affordable one is found by halves
            middle = (low + high + 1) // 2
            if (middle - start) * int(widths[middle - 1]) <= budget:
                low = middle
            else:
                high = middle - 1
        borders.append(low)
    return borders
