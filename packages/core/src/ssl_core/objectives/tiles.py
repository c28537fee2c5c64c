"""Log-sum-exps over all pairs in both directions, tile by tile: O(N D) memory, no running maximum.

Similarities of unit vectors over a temperature are at most 1 / T. With that bound as the shift no
maximum is needed, so tiles can be visited in any order: a first visit sums them, a second makes
them again and forms the gradient. Where the similarities are symmetric half of the tiles serve for
both halves. With replicas, only the sums (and for two towers the second one's gradient) travel:
each rank forms the whole gradient of its own rows, for every replica's loss.

Not twice differentiable. The gradient assumes that all replicas scale their loss alike.

With `bf16` products are of embeddings rounded to bfloat16 (a CPU's kernels round the products as
well); everything else stays as it is. A similarity s then errs by up to 2^-7 s, a mass and the
gradient by that share of themselves.

With `SSL_TRITON=1` in the environment kernels stand in for both forms on CUDA, where they can take
them (`triton_partition.py`); nobody has timed them yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_core.distributed import gather as gather_rows
from ssl_core.distributed import rank, world_size
from ssl_core.objectives.precision import LOG2_E

TILE = {"cpu": (384, 384)}
"""Rows and columns of a tile: with its scratch 1.1 MiB of float32; elsewhere 256 MiB. Tiles on the
diagonal are square and made whole, so low ones waste little of a small batch's products."""
KEPT = {"cpu": 2**22}
"""So many entries (16 MiB of float32) of the first visit's tiles are kept for the second."""


def fits(temperature: float | Tensor, dtype: torch.dtype) -> float | None:
    """1 / T where exp(-2 / T) is a normal number of `dtype` with room to spare, else None.

    None as well where reading a temperature would wait for a device or break a traced graph.
    """
    if isinstance(temperature, Tensor):
        if temperature.device.type != "cpu" or torch.compiler.is_compiling():
            return None
        temperature = float(temperature.detach())
    largest = 1 / temperature
    return largest if 2 * largest < -0.9 * math.log(torch.finfo(dtype).tiny) else None


def self_partition(
    z: Tensor,
    *,
    weights: Tensor,
    largest: float,
    group: int = 1,
    gather: bool = True,
    bf16: bool = False,
) -> Tensor:
    """sum_i weights_i * log sum_{j not in i's group} exp(z_i . z_j), a scalar.

    Arguments: `z` `[R, D]` with every product at most `largest`, `weights` `[R]` without gradient;
    runs of `group` rows are left out of each other's sums (1: only the row itself). Candidates are
    the rows of all replicas when gathering.
    """
    result: Tensor = _SelfPartition.apply(z, weights, largest, group, gather, bf16)
    return result


def pair_partition(
    a: Tensor,
    b: Tensor,
    *,
    weights: Tensor,
    largest: float,
    decoupled: bool,
    gather: bool = True,
    bf16: bool = False,
) -> Tensor:
    """sum_i weights_i * (log sum_j exp(a_i . b_j) + log sum_j exp(a_j . b_i)), a scalar.

    Arguments: `a`, `b` `[R, D]` with every product at most `largest`, `weights` `[R]` without
    gradient; `decoupled` leaves the pair (i, i) out. Sums run over the rows of all replicas when
    gathering.
    """
    result: Tensor = _PairPartition.apply(a, b, weights, largest, decoupled, gather, bf16)
    return result


class _SelfPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        weights: Tensor,
        largest: float,
        group: int,
        gather: bool,
        bf16: bool,
    ) -> Tensor:
        z = z.contiguous()
        everyone, first = _everyone(z, gather)
        visits = _SelfTiles(z, everyone, first, group, largest, bf16)
        mass: Tensor = visits.masses()
        total: Tensor = (weights * (largest + mass.log())).sum()
        if not ctx.needs_input_grad[0]:
            return total
        share = weights / mass  # [R]
        grad = visits.gradient(share, gather_rows(share) if gather else share)
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad * upstream[0], None, None, None, None, None


class _SelfTiles:
    """The two visits of `_SelfPartition` by tiles."""

    def __init__(
        self, z: Tensor, everyone: Tensor, first: int, group: int, largest: float, bf16: bool
    ) -> None:
        half = z.shape[0] * (z.shape[0] + 1) // 2
        entries = half + z.shape[0] * (everyone.shape[0] - z.shape[0])
        self.z, self.first, self.group = z, first, group
        self.scratch = _Scratch(z, largest, multiple=group, entries=entries)
        self.x, self.y = (_rounded(z), _rounded(everyone)) if bf16 else (z, everyone)

    def _tiles(self) -> Iterator[tuple[slice, slice, bool, Tensor]]:
        return self.scratch.tiles(self.x, self.y, self.first, self.group)

    def masses(self) -> Tensor:
        """sum_j exp(z_i . y_j - largest) over rows j outside of i's group, `[R]`."""
        mass = self.z.new_zeros(self.z.shape[0])
        for rows, columns, mirrored, p in self._tiles():
            mass[rows] += p.sum(1)
            if mirrored:
                mass[_back(columns, self.first)] += p.sum(0)
        return mass

    def gradient(self, share: Tensor, shares: Tensor) -> Tensor:
        """sum_j (share_i + shares_j) exp(z_i . y_j - largest) y_j over the same j, `[R, D]`."""
        grad = torch.zeros_like(self.z)
        for rows, columns, mirrored, p in self._tiles():
            g = p.mul_(self.scratch.outer(share[rows], shares[columns]))
            _add_product(grad[rows], g, self.y[columns])
            if mirrored:
                _add_product(grad[_back(columns, self.first)], g.T, self.x[rows])
        return grad


class _PairPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        weights: Tensor,
        largest: float,
        decoupled: bool,
        gather: bool,
        bf16: bool,
    ) -> Tensor:
        a, b = a.contiguous(), b.contiguous()
        everyone, first = _everyone(b, gather)
        spread = gather and world_size() > 1
        own = slice(first, first + b.shape[0])
        scratch = _Scratch(a, largest, multiple=1, entries=a.shape[0] * everyone.shape[0])
        x, y = (_rounded(a), _rounded(everyone)) if bf16 else (a, everyone)
        group = 1 if decoupled else 0
        row_mass, column_mass = a.new_zeros(a.shape[0]), a.new_zeros(everyone.shape[0])
        for rows, columns, p in scratch.rectangle(x, y, first, group):
            row_mass[rows] += p.sum(1)
            column_mass[columns] += p.sum(0)
        if spread:
            dist.all_reduce(column_mass)
        logs = row_mass.log() + column_mass[own].log()
        total = (weights * (2 * largest + logs)).sum()
        if not any(ctx.needs_input_grad[:2]):
            return total
        row_share = weights / row_mass
        column_share = (gather_rows(weights) if gather else weights) / column_mass  # [N]
        grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(everyone)
        for rows, columns, p in scratch.rectangle(x, y, first, group):
            g = p.mul_(scratch.outer(row_share[rows], column_share[columns]))
            _add_product(grad_a[rows], g, y[columns])
            _add_product(grad_b[columns], g.T, x[rows])
        if spread:
            dist.all_reduce(grad_b)
        ctx.save_for_backward(grad_a, grad_b[own])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_a, grad_b = (saved * upstream[0] for saved in ctx.saved_tensors)
        return grad_a, grad_b, None, None, None, None, None


def _rounded(z: Tensor) -> Tensor:
    return z.bfloat16()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of bfloat16 tensors; CUDA's kernels keep the float32 in which they add up."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else torch.mm(a, b)


def _add_product(total: Tensor, g: Tensor, columns: Tensor) -> None:
    """total += g @ columns."""
    if columns.dtype == total.dtype:
        total.addmm_(g, columns)
    else:
        total.add_(_product(g.to(columns.dtype), columns))


def _everyone(z: Tensor, gather: bool) -> tuple[Tensor, int]:
    """All replicas' rows and where this one's begin among them."""
    return (gather_rows(z), rank() * z.shape[0]) if gather else (z, 0)


def _back(columns: slice, first: int) -> slice:
    """Columns of all replicas' rows as rows of this one."""
    return slice(columns.start - first, columns.stop - first)


class _Scratch:
    """Buffers of a tile's size, used again and again: fresh pages cost more than sums.

    No product exceeds `largest`. `entries` is how many a visit makes; the first ones are kept for
    the second visit, all others made again.
    """

    def __init__(self, like: Tensor, largest: float, *, multiple: int, entries: int) -> None:
        self.shift = like.new_full((1, 1), -largest * LOG2_E)
        rows, columns = TILE.get(like.device.type, (8192, 8192))
        # Groups must not straddle tiles.
        self.height = max(1, rows // multiple) * multiple
        self.width = max(1, columns // multiple) * multiple
        largest = self.height * max(self.height, self.width)  # tiles on the diagonal are square
        self.room = KEPT.get(like.device.type, 2**28)
        self.kept: dict[tuple[int, int], Tensor] = {}
        self.products = None if entries <= self.room else like.new_empty(largest)
        self.weights = like.new_empty(min(largest, like.shape[0] * max(like.shape[0], self.width)))

    def tiles(
        self, z: Tensor, everyone: Tensor, first: int, group: int
    ) -> Iterator[tuple[slice, slice, bool, Tensor]]:
        """(rows of z, columns of everyone, whether it also stands for its mirror image, exps).

        Tiles among this replica's own rows come from the upper triangle only.
        """
        count = z.shape[0]
        for top in range(0, count, self.height):
            rows = slice(top, min(top + self.height, count))
            inside = slice(first + rows.start, first + rows.stop)
            yield rows, inside, False, self._exp(z, everyone, rows, inside, first, group)
            for columns in self._runs(inside.stop, first + count):
                p = self._exp(z, everyone, rows, columns, first, 0)
                yield rows, columns, True, p
            for start, stop in ((0, first), (first + count, everyone.shape[0])):
                for columns in self._runs(start, stop):
                    p = self._exp(z, everyone, rows, columns, first, 0)
                    yield rows, columns, False, p

    def rectangle(
        self, a: Tensor, everyone: Tensor, first: int, group: int
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """(rows of a, columns of everyone, exps), all of them once."""
        for top in range(0, a.shape[0], self.height):
            rows = slice(top, min(top + self.height, a.shape[0]))
            for columns in self._runs(0, everyone.shape[0]):
                yield rows, columns, self._exp(a, everyone, rows, columns, first, group)

    def _runs(self, start: int, stop: int) -> Iterator[slice]:
        for left in range(start, stop, self.width):
            yield slice(left, min(left + self.width, stop))

    def _exp(
        self,
        a: Tensor,
        everyone: Tensor,
        rows: slice,
        columns: slice,
        first: int,
        group: int,
    ) -> Tensor:
        """exp(a_i . b_j - largest); zero where row i and column j are of one group (0: none)."""
        place = rows.start, columns.start
        if place in self.kept:
            return self.kept[place]
        size = (rows.stop - rows.start) * (columns.stop - columns.start)
        buffer = None if size <= self.room else self.products
        p = None if buffer is None else self._shaped(buffer, rows, columns)
        if a.dtype == self.shift.dtype:
            b = everyone[columns].T
            p = torch.addmm(self.shift, a[rows], b, alpha=LOG2_E, out=p)
        else:
            made = _product(a[rows], everyone[columns].T)
            p = torch.add(self.shift, made, alpha=LOG2_E, out=p)
        if buffer is None:
            self.kept[place] = p
            self.room -= size
        p.exp2_()
        low = max(rows.start + first, columns.start)
        high = min(rows.stop + first, columns.stop)
        if group and low < high:
            block = p[low - first - rows.start : high - first - rows.start]
            block = block[:, low - columns.start : high - columns.start]
            if group == 1:
                block.diagonal().zero_()
            else:
                runs = block.unflatten(0, (-1, group)).unflatten(2, (-1, group))  # [n, g, n, g]
                runs.diagonal(dim1=0, dim2=2).zero_()
        return p

    def outer(self, rows: Tensor, columns: Tensor) -> Tensor:
        """rows_i + columns_j."""
        out = self._shaped(self.weights, slice(0, len(rows)), slice(0, len(columns)))
        return torch.add(rows.unsqueeze(1), columns.unsqueeze(0), out=out)

    @staticmethod
    def _shaped(buffer: Tensor, rows: slice, columns: slice) -> Tensor:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        return buffer[: height * width].view(height, width)
