"""The passes of `sinkhorn_passes` as compiled loops, row by row; needs numba.

A row of thousands of prototypes stays in the innermost cache from its maximum to its share of the
column sums, so that a pass costs little more than reading the matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from ssl_core.compiling import kept

_f, _i = np.float32, np.int32  # Python's numbers would make a whole loop 64 bits wide
_ROUNDING = _f(1.5 * 2**23)
"""Added to a float32 of less than 2^22 it leaves the nearest whole number in the lowest bits."""
_LOWEST = _f(-126)  # below, powers of two are subnormal
_EXPONENTS = _i(127 << 23)
# 2^x on [-1/2, 1/2] to 2e-7 of it: Taylor's series, the highest power first.
_C6, _C5, _C4, _C3, _C2, _C1 = (
    _f(np.log(2) ** n / np.prod(np.arange(1, n + 1, dtype=np.float64))) for n in range(6, 0, -1)
)


def exponentiate(logits: Tensor, scale: float, q: Tensor) -> tuple[Tensor, Tensor]:
    mass, largest = logits.new_zeros(logits.shape[1]), logits.new_full((), -torch.inf)
    _exponentiate(_memory(logits), _f(scale), _memory(q), _memory(mass), _memory(largest[None]))
    return mass, largest


def column_mass(q: Tensor, v: Tensor) -> Tensor:
    mass = torch.zeros_like(v)
    _column_mass(_memory(q), _memory(v), _memory(mass))
    return mass


def normalise_(q: Tensor, v: Tensor) -> None:
    _normalise(_memory(q), _memory(v))


def _memory(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def _reinterpreting(source: types.Type, target: types.Type) -> Any:
    """The bits of a number as those of a number of another type."""

    @intrinsic
    def reinterpret(_typing: Any, _x: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
            return builder.bitcast(values[0], context.get_value_type(target))

        return target(source), generate

    return reinterpret


_whole = _reinterpreting(types.float32, types.int32)
_real = _reinterpreting(types.int32, types.float32)


@njit
def _ordered(bits):
    """Whole numbers in the order of the numbers whose bits they are, NaN the last; its own inverse.

    Their maximum is vectorised, that of float32 is not, because of NaN.
    """
    return bits ^ ((bits >> _i(31)) & _i(0x7FFFFFFF))


@njit
def _maximum(row):
    most = _ordered(_whole(_f(-np.inf)))
    for i in range(row.size):
        bits = _ordered(_whole(row[i]))
        most = bits if bits > most else most
    return _real(_ordered(most))


@njit(fastmath={"contract"})
def _powers(row, scale, top, out):
    """2^(scale row - top), where that is not subnormal, else 0."""
    for i in range(row.size):
        x = row[i] * scale - top
        held = _LOWEST if x < _LOWEST else x  # NaN stays
        rounded = held + _ROUNDING
        n = rounded - _ROUNDING
        r = held - n
        power = (((((_C6 * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r + _C1) * r + _f(1)
        power *= _real(_i((_whole(rounded) << _i(23)) + _EXPONENTS))
        out[i] = _f(0) if x < _LOWEST else power


@njit(fastmath={"reassoc", "contract"})  # in lanes: of a fixed number, so in a fixed order
def _dot(x, y):
    total = _f(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@njit(fastmath={"contract"})
def _add(total, weight, row):
    for i in range(row.size):
        total[i] += weight * row[i]


@kept()
def _exponentiate(logits, scale, q, mass, largest):
    for r in range(len(logits)):
        top = _maximum(logits[r]) * scale
        _powers(logits[r], scale, top, q[r])
        if top > largest[0]:
            mass *= np.exp2(largest[0] - top)
            largest[0] = top
        _add(mass, np.exp2(top - largest[0]), q[r])


@kept(error_model="numpy")
def _column_mass(q, v, mass):
    for r in range(len(q)):
        _add(mass, _f(1) / _dot(q[r], v), q[r])


@kept(error_model="numpy")
def _normalise(q, v):
    for r in range(len(q)):
        row = q[r]
        u = _f(1) / _dot(row, v)
        for i in range(row.size):
            row[i] *= u * v[i]
