"""What all ranks must agree on, in one small all-reduce a step that nobody waits for."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ssl_core.distributed import world_size


class Vote:
    """The largest value over ranks of a few integers, cast every step.

    Between processes the result is that of the step before: its exchange ran beside the step's
    computation, on the CPU, so that neither host nor accelerator ever waits for it. All ranks
    read the same result and therefore act at the same step.
    """

    def __init__(self, count: int) -> None:
        self._none = (_LOWEST,) * count
        self._pending: tuple[Tensor, Any] | None = None

    def cast(self, *values: int) -> tuple[int, ...]:
        """Hands in this step's values; returns the agreed ones of the newest finished vote."""
        if world_size() == 1:
            return values
        before = self._collect()
        tensor = torch.tensor(values, dtype=torch.int64)
        self._pending = tensor, dist.all_reduce(tensor, dist.ReduceOp.MAX, async_op=True)
        return before

    def settle(self, *values: int) -> tuple[int, ...]:
        """Agrees on these values now."""
        if world_size() == 1:
            return values
        self.cast(*values)
        return self._collect()

    def _collect(self) -> tuple[int, ...]:
        if self._pending is None:
            return self._none
        tensor, work = self._pending
        work.wait()
        self._pending = None
        return tuple(tensor.tolist())


_LOWEST = -(1 << 62)
