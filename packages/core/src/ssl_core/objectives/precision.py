"""Losses are computed in float32 or better, also under autocast; exponentials to base 2."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

LOG2_E = math.log2(math.e)
"""exp(x) = exp2(LOG2_E x). On a CPU torch hands `exp` to a library that is four times slower than
torch's own `exp2` on some processors; where logits are scaled anyway, the other base is free."""
LN_2 = math.log(2)

_FLOORS = {torch.float32: -88.0, torch.float64: -715.0}


def power_(x: Tensor) -> Tensor:
    """2^x in the memory of x, for x <= 0 of which one in a sum is 0 (float32 or float64).

    On a CPU what lies under 2^-88 (2^-715) is raised to it, which no sum with a 1 shows: such
    powers, or their products with a weight, are subnormal numbers, with which some processors take
    several times as long for a whole loss. To GPUs they are as others.
    """
    if x.device.type == "cpu":
        x.clamp_(min=_FLOORS[x.dtype])
    return x.exp2_()


_HALF = (torch.bfloat16, torch.float16)


def _first_tensor(values: Sequence[Any]) -> Tensor | None:
    for value in values:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, (list, tuple)) and (found := _first_tensor(value)) is not None:
            return found
    return None


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_widened, value))
    if isinstance(value, (list, tuple)):
        return type(value)(_widened(item) for item in value)
    return value


def full_precision(objective: Callable[P, R]) -> Callable[P, R]:
    """Runs an objective without autocast and with half-precision tensors widened to float32.

    A similarity divided by a small temperature, a variance or a log-softmax over many classes
    loses digits in bfloat16 that the gradient needs; the loss itself is a small share of a step.
    """

    @functools.wraps(objective)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        first = _first_tensor([*args, *kwargs.values()])
        if first is None:
            return objective(*args, **kwargs)
        wide = [_widened(value) for value in args]
        named = {name: _widened(value) for name, value in kwargs.items()}
        with torch.autocast(first.device.type, enabled=False):
            return objective(*wide, **named)

    return run
