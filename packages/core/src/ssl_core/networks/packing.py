"""Batches of unequal lengths without their padding: real tokens one after another, `[1, T, ...]`.

Layers that treat tokens one by one (linear maps, norms, feed-forward blocks) then do no work for
padding. What mixes tokens has to ask `current_packing` and keep samples apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the T real tokens of a padded batch `[B, L]` stand.

    `valid` is bool `[B, L]`; `index`, int64 `[T]`, their places in the flattened batch, in order.
    """

    valid: Tensor
    index: Tensor

    @classmethod
    def of(cls, valid: Tensor) -> Packing:
        """The packing of a mask; on a GPU this waits for the mask."""
        return cls(valid, valid.flatten().nonzero()[:, 0])

    @property
    def share(self) -> float:
        """T / (B L): 1 where nothing is padded."""
        return len(self.index) / self.valid.numel()

    @cached_property
    def rows(self) -> Tensor:
        """The sample of each token, int64 `[T]`."""
        return self.index // self.valid.shape[1]

    @cached_property
    def places(self) -> Tensor:
        """The place of each token in its sample, int64 `[T]`."""
        return self.index % self.valid.shape[1]

    def pack(self, x: Tensor) -> Tensor:
        """`[B, L, ...]` to `[1, T, ...]`."""
        return x.flatten(0, 1).index_select(0, self.index).unsqueeze(0)

    def unpack(self, x: Tensor) -> Tensor:
        """`[1, T, ...]` to `[B, L, ...]`, zero on padding."""
        flat = x.new_zeros(self.valid.numel(), *x.shape[2:]).index_copy(0, self.index, x[0])
        out: Tensor = flat.unflatten(0, tuple(self.valid.shape))
        return out


_CURRENT: ContextVar[Packing | None] = ContextVar("packing", default=None)


@contextlib.contextmanager
def packed(packing: Packing | None) -> Iterator[None]:
    """While active, what runs inside sees `[1, T, ...]` in place of `[B, L, ...]`."""
    token = _CURRENT.set(packing)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_packing() -> Packing | None:
    """The packing of what is being encoded, or None for padded batches."""
    return _CURRENT.get()
