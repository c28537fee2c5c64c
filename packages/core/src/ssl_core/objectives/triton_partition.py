"""The two visits of `self_partition` as Triton kernels, one program a block of rows: O(R D) memory.

Opt-in (`SSL_TRITON=1`), since no GPU has timed them yet. Every product and sum is in float32, of
float32 ("ieee", no TF32), and no program adds to another's memory: the same bits every time. The
similarities are made whole, not by symmetric halves, because a mirrored tile would need atomic
adds. `TRITON_INTERPRET=1` runs the same kernels on a CPU, which is how they are tested.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from ssl_core.objectives.precision import LOG2_E

WIDEST = 128
"""Numbers of an embedding that a program holds at once: at 256 it would ask for more shared memory
than small GPUs have. Wider ones stay with torch's products."""
_ROWS, _COLUMNS = 32, 32


def takes(z: Tensor, bf16: bool) -> bool:
    """Whether the kernels can take these rows: float32, narrow enough, and on a GPU."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1" and z.device.type == "cpu"
    return (z.is_cuda or interpreted) and not bf16 and _fitting(z)


def _fitting(z: Tensor) -> bool:
    return z.dtype == torch.float32 and z.shape[1] <= WIDEST


class Visits:
    """Sums, then the gradient, over `everyone` `[N, D]` of its rows `z` `[R, D]` from `first` on.

    Both are contiguous; no product exceeds `largest`; runs of `group` rows are left out of each
    other's sums.
    """

    def __init__(self, z: Tensor, everyone: Tensor, first: int, group: int, largest: float) -> None:
        self.z, self.everyone = z, everyone
        self.first, self.group, self.largest = first, group, largest

    def masses(self) -> Tensor:
        """sum_j exp(z_i . y_j - largest) over rows j outside of i's group, `[R]`."""
        mass = self.z.new_empty(self.z.shape[0])
        self._launch(_masses, mass)
        return mass

    def gradient(self, share: Tensor, shares: Tensor) -> Tensor:
        """sum_j (share_i + shares_j) exp(z_i . y_j - largest) y_j over the same j, `[R, D]`.

        `share` `[R]` are weights over masses of these rows, `shares` `[N]` of all.
        """
        grad = torch.empty_like(self.z)
        self._launch(_gradient, share.contiguous(), shares.contiguous(), grad)
        return grad

    def _launch(self, kernel: Any, *tensors: Tensor) -> None:
        count, dim = self.z.shape
        kernel[(triton.cdiv(count, _ROWS),)](
            self.z,
            self.everyone,
            *tensors,
            count,
            self.everyone.shape[0],
            dim,
            self.first,
            LOG2_E,
            self.largest * LOG2_E,
            GROUP=self.group,
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
            WIDTH=max(16, triton.next_power_of_2(dim)),  # a product's inner side is at least 16
        )


@triton.jit  # type: ignore[untyped-decorator]
def _rows_of(table, rows, count, dim, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows of `table` `[count, dim]`, zero beyond its ends."""
    at = tl.arange(0, WIDTH)
    inside = (rows[:, None] < count) & (at[None, :] < dim)
    # 64 bits: rows times width pass 2^31 with many replicas.
    return tl.load(table + rows[:, None].to(tl.int64) * dim + at[None, :], mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _exp(x, y, rows, columns, first, candidates, scale, shift, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """exp(x_i . y_j - largest) to base 2; zero within a group and beyond the last candidate."""
    s = tl.dot(x, tl.trans(y), input_precision="ieee") * scale - shift
    apart = ((rows + first) // GROUP)[:, None] != (columns // GROUP)[None, :]
    return tl.where(apart & (columns < candidates)[None, :], tl.exp2(s), 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _masses(  # type: ignore[no-untyped-def]
    z,
    everyone,
    mass,
    count,
    candidates,
    dim,
    first,
    scale,
    shift,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    x = _rows_of(z, rows, count, dim, WIDTH)
    total = tl.zeros([ROWS], dtype=tl.float32)
    for start in range(0, candidates, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        y = _rows_of(everyone, columns, candidates, dim, WIDTH)
        total += tl.sum(_exp(x, y, rows, columns, first, candidates, scale, shift, GROUP), 1)
    tl.store(mass + rows, total, mask=rows < count)


@triton.jit  # type: ignore[untyped-decorator]
def _gradient(  # type: ignore[no-untyped-def]
    z,
    everyone,
    share,
    shares,
    grad,
    count,
    candidates,
    dim,
    first,
    scale,
    shift,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    x = _rows_of(z, rows, count, dim, WIDTH)
    own = tl.load(share + rows, mask=rows < count, other=0.0)
    total = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for start in range(0, candidates, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        y = _rows_of(everyone, columns, candidates, dim, WIDTH)
        theirs = tl.load(shares + columns, mask=columns < candidates, other=0.0)
        p = _exp(x, y, rows, columns, first, candidates, scale, shift, GROUP)
        g = p * (own[:, None] + theirs[None, :])
        total = tl.dot(g, y, total, input_precision="ieee")
    at = tl.arange(0, WIDTH)
    inside = (rows[:, None] < count) & (at[None, :] < dim)
    tl.store(grad + rows[:, None].to(tl.int64) * dim + at[None, :], total, mask=inside)
