"""Log-sum-exps over all pairs in both directions, tile by tile: O(N D) memory, no running maximum.

Similarities of unit vectors over a temperature are at most 1 / T. With that bound as the shift no
maximum is needed, so tiles can be visited in any order: a first visit sums them, a second makes
them again and forms the gradient. Where the similarities are symmetric half of the tiles serve for
both halves. With replicas, only the sums (and for two towers the second one's gradient) travel:
each rank forms the whole gradient of its own rows, for every replica's loss.

Not twice differentiable. The gradient assumes that all replicas scale their loss alike.
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

TILE = {"cpu": (512, 512)}
"""Rows and columns of a tile: with its scratch 2 MiB of float32; elsewhere 256 MiB."""
KEPT = {"cpu": 2**22}
"""Up to so many entries (16 MiB of float32) the first visit's tiles are kept for the second."""


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
    z: Tensor, *, weights: Tensor, largest: float, group: int = 1, gather: bool = True
) -> Tensor:
    """sum_i weights_i * log sum_{j not in i's group} exp(z_i . z_j), a scalar.

    Arguments: `z` `[R, D]` with every product at most `largest`, `weights` `[R]` without gradient;
    runs of `group` rows are left out of each other's sums (1: only the row itself). Candidates are
    the rows of all replicas when gathering.
    """
    result: Tensor = _SelfPartition.apply(z, weights, largest, group, gather)
    return result


def pair_partition(
    a: Tensor, b: Tensor, *, weights: Tensor, largest: float, decoupled: bool, gather: bool = True
) -> Tensor:
    """sum_i weights_i * (log sum_j exp(a_i . b_j) + log sum_j exp(a_j . b_i)), a scalar.

    Arguments: `a`, `b` `[R, D]` with every product at most `largest`, `weights` `[R]` without
    gradient; `decoupled` leaves the pair (i, i) out. Sums run over the rows of all replicas when
    gathering.
    """
    result: Tensor = _PairPartition.apply(a, b, weights, largest, decoupled, gather)
    return result


class _SelfPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weights: Tensor, largest: float, group: int, gather: bool
    ) -> Tensor:
        z = z.contiguous()
        everyone, first = _everyone(z, gather)
        half = z.shape[0] * (z.shape[0] + 1) // 2
        entries = half + z.shape[0] * (everyone.shape[0] - z.shape[0])
        scratch = _Scratch(z, multiple=group, entries=entries)
        mass = z.new_zeros(z.shape[0])
        for rows, columns, mirrored, p in scratch.tiles(z, everyone, first, largest, group):
            mass[rows] += p.sum(1)
            if mirrored:
                mass[_back(columns, first)] += p.sum(0)
        total = (weights * (largest + mass.log())).sum()
        if not ctx.needs_input_grad[0]:
            return total
        share = weights / mass  # [R]
        shares = gather_rows(share) if gather else share  # [N]
        grad = torch.zeros_like(z)
        for rows, columns, mirrored, p in scratch.tiles(z, everyone, first, largest, group):
            g = p.mul_(scratch.outer(share[rows], shares[columns]))
            grad[rows].addmm_(g, everyone[columns])
            if mirrored:
                grad[_back(columns, first)].addmm_(g.T, z[rows])
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad * upstream[0], None, None, None, None


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
    ) -> Tensor:
        a, b = a.contiguous(), b.contiguous()
        everyone, first = _everyone(b, gather)
        spread = gather and world_size() > 1
        own = slice(first, first + b.shape[0])
        scratch = _Scratch(a, multiple=1, entries=a.shape[0] * everyone.shape[0])
        group = 1 if decoupled else 0
        row_mass, column_mass = a.new_zeros(a.shape[0]), a.new_zeros(everyone.shape[0])
        for rows, columns, p in scratch.rectangle(a, everyone, first, largest, group):
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
        for rows, columns, p in scratch.rectangle(a, everyone, first, largest, group):
            g = p.mul_(scratch.outer(row_share[rows], column_share[columns]))
            grad_a[rows].addmm_(g, everyone[columns])
            grad_b[columns].addmm_(g.T, a[rows])
        if spread:
            dist.all_reduce(grad_b)
        ctx.save_for_backward(grad_a, grad_b[own])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_a, grad_b = (saved * upstream[0] for saved in ctx.saved_tensors)
        return grad_a, grad_b, None, None, None, None


def _everyone(z: Tensor, gather: bool) -> tuple[Tensor, int]:
    """All replicas' rows and where this one's begin among them."""
    return (gather_rows(z), rank() * z.shape[0]) if gather else (z, 0)


def _back(columns: slice, first: int) -> slice:
    """Columns of all replicas' rows as rows of this one."""
    return slice(columns.start - first, columns.stop - first)


class _Scratch:
    """Buffers of a tile's size, used again and again: fresh pages cost more than sums.

    `entries` is how many a visit makes; few enough are kept in one pool for the second visit.
    """

    def __init__(self, like: Tensor, *, multiple: int, entries: int) -> None:
        rows, columns = TILE.get(like.device.type, (8192, 8192))
        # Groups must not straddle tiles.
        self.height = max(1, rows // multiple) * multiple
        self.width = max(1, columns // multiple) * multiple
        largest = self.height * max(self.height, self.width)  # tiles on the diagonal are square
        self.keep = entries <= KEPT.get(like.device.type, 2**28)
        self.kept: dict[tuple[int, int], Tensor] = {}
        self.products = None if self.keep else like.new_empty(largest)
        self.weights = like.new_empty(min(largest, like.shape[0] * max(like.shape[0], self.width)))

    def tiles(
        self, z: Tensor, everyone: Tensor, first: int, largest: float, group: int
    ) -> Iterator[tuple[slice, slice, bool, Tensor]]:
        """(rows of z, columns of everyone, whether it also stands for its mirror image, exps).

        Tiles among this replica's own rows come from the upper triangle only.
        """
        count = z.shape[0]
        for top in range(0, count, self.height):
            rows = slice(top, min(top + self.height, count))
            inside = slice(first + rows.start, first + rows.stop)
            yield rows, inside, False, self._exp(z, everyone, rows, inside, first, largest, group)
            for columns in self._runs(inside.stop, first + count):
                p = self._exp(z, everyone, rows, columns, first, largest, 0)
                yield rows, columns, True, p
            for start, stop in ((0, first), (first + count, everyone.shape[0])):
                for columns in self._runs(start, stop):
                    p = self._exp(z, everyone, rows, columns, first, largest, 0)
                    yield rows, columns, False, p

    def rectangle(
        self, a: Tensor, everyone: Tensor, first: int, largest: float, group: int
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """(rows of a, columns of everyone, exps), all of them once."""
        for top in range(0, a.shape[0], self.height):
            rows = slice(top, min(top + self.height, a.shape[0]))
            for columns in self._runs(0, everyone.shape[0]):
                yield rows, columns, self._exp(a, everyone, rows, columns, first, largest, group)

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
        largest: float,
        group: int,
    ) -> Tensor:
        """exp(a_i . b_j - largest); zero where row i and column j are of one group (0: none)."""
        place = rows.start, columns.start
        if place in self.kept:
            return self.kept[place]
        if self.products is None:
            p = self.kept[place] = torch.mm(a[rows], everyone[columns].T)
        else:
            p = self._shaped(self.products, rows, columns)
            torch.mm(a[rows], everyone[columns].T, out=p)
        p.sub_(largest).exp_()
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
