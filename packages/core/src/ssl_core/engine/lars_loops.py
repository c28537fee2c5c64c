"""LARS for one tensor as compiled loops: its products in one pass, its update in another.

Needs numba. Reading memory is what it costs, and torch's calls pass over it four times: three
products and the update.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from ssl_core.compiling import kept

_f = np.float32
_BLOCK = 1 << 14
"""Numbers whose sums are kept in float32."""


def products(p: Tensor, g: Tensor) -> tuple[float, float, float]:
    """p.p, g.g and g.p of two float32 tensors that lie alike in memory."""
    found: tuple[float, float, float] = _products(_memory(p), _memory(g))
    return found


def sgd_(
    p: Tensor,
    g: Tensor,
    buffer: Tensor | None,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    ratio: float,
    decay: float,
) -> None:
    """Momentum SGD of ratio (g + decay p), in place; without a buffer, and momentum, plain SGD."""
    where, gradient = _memory(p), _memory(g)
    if buffer is None:
        _plain(where, gradient, _f(lr * ratio), _f(decay))
        return
    moving = _nesterov if nesterov else _heavy_ball
    moving(where, gradient, _memory(buffer), _f(lr), _f(momentum), _f(ratio), _f(decay))


def _memory(x: Tensor) -> np.ndarray:
    """As one row, in the order in which its numbers lie."""
    return x.detach().as_strided((x.numel(),), (1,)).numpy()


@njit(fastmath={"reassoc", "contract"})  # in lanes: of a fixed number, so in a fixed order
def _of_block(p, g):
    pp, gg, gp = _f(0), _f(0), _f(0)
    for i in range(p.size):
        pp += p[i] * p[i]
        gg += g[i] * g[i]
        gp += g[i] * p[i]
    return pp, gg, gp


@kept()
def _products(p, g):
    pp, gg, gp = 0.0, 0.0, 0.0
    for start in range(0, p.size, _BLOCK):
        part = _of_block(p[start : start + _BLOCK], g[start : start + _BLOCK])
        pp, gg, gp = pp + part[0], gg + part[1], gp + part[2]
    return pp, gg, gp


@kept(fastmath={"contract"})
def _plain(p, g, lr, decay):
    for i in range(p.size):
        p[i] -= lr * (g[i] + decay * p[i])


@kept(fastmath={"contract"})
def _heavy_ball(p, g, buffer, lr, momentum, ratio, decay):
    for i in range(p.size):
        moved = momentum * buffer[i] + ratio * (g[i] + decay * p[i])
        buffer[i] = moved
        p[i] -= lr * moved


@kept(fastmath={"contract"})
def _nesterov(p, g, buffer, lr, momentum, ratio, decay):
    for i in range(p.size):
        step = ratio * (g[i] + decay * p[i])
        moved = momentum * buffer[i] + step
        buffer[i] = moved
        p[i] -= lr * (step + momentum * moved)
