"""Log-sum-exps over all pairs as two Triton kernels, one program a block of rows: O(R D) memory.

The first takes each row's log-sum-exp with a running maximum, so that any temperature will do, also
a learned one that only the device knows; the second makes the similarities again and forms the
gradient of the rows,

    grad_i = sum_j (w_i exp(s_ij - l_i) + w_j exp(s_ij - l_j)) y_j

of sum_i w_i l_i, for the roles of i as anchor and as candidate at once: NT-Xent is one such pair of
visits, two towers are one from each side.

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
from torch.autograd.function import once_differentiable

from ssl_core.distributed import gather as gather_rows
from ssl_core.distributed import rank
from ssl_core.objectives.precision import LN_2, LOG2_E

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


def self_partition(z: Tensor, *, weights: Tensor, group: int = 1, gather: bool = True) -> Tensor:
    """As `tiles.self_partition`, at any temperature."""
    result: Tensor = _SelfPartition.apply(z, weights, group, gather)
    return result


def pair_partition(
    a: Tensor, b: Tensor, *, weights: Tensor, decoupled: bool, gather: bool = True
) -> Tensor:
    """As `tiles.pair_partition`, at any temperature."""
    result: Tensor = _PairPartition.apply(a, b, weights, int(decoupled), gather)
    return result


class _SelfPartition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, weights: Tensor, group: int, gather: bool) -> Tensor:
        visits = Visits(z, z, group, gather)
        logs = visits.logs()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(visits.gradient(weights, logs, weights, logs))
        return LN_2 * (weights * logs).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad * upstream[0], None, None, None


class _PairPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, weights: Tensor, group: int, gather: bool
    ) -> Tensor:
        forth, back = Visits(a, b, group, gather), Visits(b, a, group, gather)
        logs_a, logs_b = forth.logs(), back.logs()
        if any(ctx.needs_input_grad[:2]):
            grad_a = forth.gradient(weights, logs_a, weights, logs_b)
            ctx.save_for_backward(grad_a, back.gradient(weights, logs_b, weights, logs_a))
        return LN_2 * (weights * (logs_a + logs_b)).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_a, grad_b = (saved * upstream[0] for saved in ctx.saved_tensors)
        return grad_a, grad_b, None, None, None


class Visits:
    """Log-sums, then the gradient, of rows `z` `[R, D]` over the rows `y` of all replicas.

    Without `gather` over this replica's `y` `[R, D]` alone. Runs of `group` rows are left out of
    the sums of the rows at their own places; 0 leaves none out.
    """

    def __init__(self, z: Tensor, y: Tensor, group: int, gather: bool) -> None:
        self.z, self.group, self.gather = z.contiguous(), group, gather
        self.everyone = self._all(y).contiguous()
        self.first = rank() * z.shape[0] if gather else 0

    def _all(self, rows: Tensor) -> Tensor:
        return gather_rows(rows) if self.gather else rows

    def logs(self) -> Tensor:
        """log2 sum_j exp(z_i . y_j) over rows j outside of i's group, `[R]`."""
        logs = self.z.new_empty(self.z.shape[0])
        self._launch(_logs, logs)
        return logs

    def gradient(self, own: Tensor, own_logs: Tensor, other: Tensor, other_logs: Tensor) -> Tensor:
        """The header's gradient, `[R, D]`.

        Weights w_i and logs l_i (to base 2) of z's rows, w_j and l_j of this replica's y: `[R]`.
        """
        grad = torch.empty_like(self.z)
        table = self._all(torch.stack([other, other_logs], dim=1)).T.contiguous()  # [2, N]
        self._launch(_gradient, own.contiguous(), own_logs, table[0], table[1], grad)
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
def _similarities(x, y, rows, columns, first, candidates, scale, GROUP: tl.constexpr):  # type: ignore[no-untyped-def]
    """x_i . y_j to base 2; -inf within a group and beyond the last candidate."""
    s = tl.dot(x, tl.trans(y), input_precision="ieee") * scale
    counted = (columns < candidates)[None, :]
    if GROUP > 0:
        counted &= ((rows + first) // GROUP)[:, None] != (columns // GROUP)[None, :]
    return tl.where(counted, s, -float("inf"))


@triton.jit  # type: ignore[untyped-decorator]
def _logs(  # type: ignore[no-untyped-def]
    z,
    everyone,
    logs,
    count,
    candidates,
    dim,
    first,
    scale,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    x = _rows_of(z, rows, count, dim, WIDTH)
    top = tl.full([ROWS], -1e30, dtype=tl.float32)  # finite: -inf less itself would be no number
    total = tl.zeros([ROWS], dtype=tl.float32)
    for start in range(0, candidates, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        y = _rows_of(everyone, columns, candidates, dim, WIDTH)
        s = _similarities(x, y, rows, columns, first, candidates, scale, GROUP)
        higher = tl.maximum(top, tl.max(s, 1))
        total = total * tl.exp2(top - higher) + tl.sum(tl.exp2(s - higher[:, None]), 1)
        top = higher
    tl.store(logs + rows, top + tl.log2(total), mask=rows < count)


@triton.jit  # type: ignore[untyped-decorator]
def _gradient(  # type: ignore[no-untyped-def]
    z,
    everyone,
    own,
    own_logs,
    other,
    other_logs,
    grad,
    count,
    candidates,
    dim,
    first,
    scale,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    x = _rows_of(z, rows, count, dim, WIDTH)
    w = tl.load(own + rows, mask=rows < count, other=0.0)[:, None]
    log = tl.load(own_logs + rows, mask=rows < count, other=0.0)[:, None]
    total = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for start in range(0, candidates, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        there = columns < candidates
        y = _rows_of(everyone, columns, candidates, dim, WIDTH)
        ws = tl.load(other + columns, mask=there, other=0.0)[None, :]
        logs = tl.load(other_logs + columns, mask=there, other=0.0)[None, :]
        s = _similarities(x, y, rows, columns, first, candidates, scale, GROUP)
        g = w * tl.exp2(s - log) + ws * tl.exp2(s - logs)
        total = tl.dot(g, y, total, input_precision="ieee")
    at = tl.arange(0, WIDTH)
    inside = (rows[:, None] < count) & (at[None, :] < dim)
    tl.store(grad + rows[:, None].to(tl.int64) * dim + at[None, :], total, mask=inside)
