"""Rows of a group of images that share a draw, changed in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from torch import Tensor

from ssl_core.ops.sending import sent

_FEW = 4
"""So many stretches of a group are changed in place, one by one."""
_SMALL = 4_000
"""Numbers of an image up to which gathering costs less than calls of its own: RGB at 36."""


def runs(drawn: list[Any]) -> Iterator[tuple[Any, slice]]:
    """Stretches of equal values and the rows they cover: frames of one clip share their draw."""
    start = 0
    for value, run in groupby(drawn):
        stop = start + sum(1 for _ in run)
        yield value, slice(start, stop)
        start = stop


def worth_gathering(x: Tensor, stretches: int) -> bool:
    """Whether so many stretches of `[B, C, H, W]` had better be gathered, changed and put back."""
    return stretches > _FEW and (x.device.type != "cpu" or x[0].numel() <= _SMALL)


def change_drawn(x: Tensor, drawn: list[bool], make: Callable[[Tensor], Tensor]) -> None:
    """`x[drawn] = make(x[drawn])` in place: each stretch by itself, or all together."""
    stretches = [rows for value, rows in runs(drawn) if value]
    if worth_gathering(x, len(stretches)):
        change(x, [row for row, value in enumerate(drawn) if value], make)
    else:
        for rows in stretches:
            change(x, rows, make)


def change(x: Tensor, rows: slice | list[int], make: Callable[[Tensor], Tensor]) -> None:
    """`x[rows] = make(x[rows])` in place; what `make` returns may want channels repeated."""
    if isinstance(rows, slice):
        x[rows].copy_(make(x[rows]))
        return
    index = sent(rows, x.device)
    some = x.index_select(0, index)
    x.index_copy_(0, index, make(some).expand_as(some))
