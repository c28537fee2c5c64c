"""The order of samples: a pure function of the step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import shuffled


@dataclass(frozen=True)
class Stream:
    """Which samples each step sees, on each rank.

    Every epoch is a keyed permutation of the `length` rows, walked in order; batches run on over
    the end of an epoch. `batch_size` counts all ranks and all `accumulate` micro-batches: rank r
    takes the r-th contiguous part of each batch, and its m-th micro-batch the m-th part of that.
    Nothing is stored: `rows` answers for any step, so the step is all a resumed run needs.
    """

    length: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UserError("data: there are no records to train on")
        parts = self.world * self.accumulate
        if self.batch_size < 1 or self.batch_size % parts:
            raise UserError(
                f"batch_size: {self.batch_size} does not divide into {self.world} ranks x "
                f"{self.accumulate} micro-batches; use a multiple of {parts}"
            )
        if not 0 <= self.rank < self.world:
            raise UserError(f"rank: {self.rank} is not below the world size {self.world}")

    @property
    def micro_size(self) -> int:
        """Rows one call of `rows` gives."""
        return self.batch_size // (self.world * self.accumulate)

    @property
    def steps_per_epoch(self) -> float:
        """Steps after which every row was seen once."""
        return self.length / self.batch_size

    def seen(self, step: int, micro: int = 0) -> int:
        """Distinct rows seen by all ranks once this micro-batch is done."""
        done = step * self.batch_size + (micro + 1) * self.micro_size * self.world
        return min(self.length, done)

    def rows(self, step: int, micro: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the source and ids of one micro-batch of this rank, both int64 `[b]`.

        An id is unique in the whole stream (`epoch * length + row`): it keys what happens to the
        sample, so a row seen again in the next epoch is treated differently.
        """
        start = step * self.batch_size + (self.rank * self.accumulate + micro) * self.micro_size
        end, index, ids = start + self.micro_size, [], []
        while start < end:
            epoch, place = divmod(start, self.length)
            part, first = divmod(place, _PART)
            order = _order(self.length, self.seed, epoch, part)[first : first + end - start]
            index.append(order)
            ids.append(epoch * self.length + order)
            start += len(order)
        return np.concatenate(index), np.concatenate(ids)


_PART = 4096
"""Places of an epoch whose rows are worked out together."""


@lru_cache(maxsize=8)
def _order(length: int, seed: int, epoch: int, part: int) -> np.ndarray:
    """The rows at a part of an epoch: so many take little longer than those of one batch."""
    places = np.arange(part * _PART, min(length, (part + 1) * _PART), dtype=np.int64)
    rows = shuffled(places, length, "order", seed, epoch)
    rows.flags.writeable = False  # it stays in the cache
    return rows
