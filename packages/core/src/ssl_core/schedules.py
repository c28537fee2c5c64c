"""Schedules: pure functions of (step, total steps); nothing about them is saved.

A schedule is called with the index of the step about to be taken, `0 <= step < total`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]


def constant(value: float) -> Schedule:
    """`value` at every step."""
    return lambda step, total: value


def linear(start: float, end: float, *, until: float = 1.0) -> Schedule:
    """From `start` at step 0 to `end` at the fraction `until` of the run, then constant."""

    def at(step: int, total: int) -> float:
        length = max(1.0, until * total - 1)
        return start + (end - start) * min(1.0, step / length)

    return at


def cosine(start: float, end: float) -> Schedule:
    """Half a cosine: `start` at step 0, `end` would be reached at step `total` (DINO, BYOL)."""
    return lambda step, total: end + (start - end) * (1 + math.cos(math.pi * step / total)) / 2


def warmup_cosine(peak: float, *, warmup: int, end: float = 0.0, start: float = 0.0) -> Schedule:
    """Linear from `start` to `peak` over `warmup` steps, then half a cosine towards `end`.

    The first step already moves: step s of the warm-up has start + (peak - start)(s + 1)/warmup,
    so that the last warm-up step and the first cosine step are both at the peak.
    """

    def at(step: int, total: int) -> float:
        if step < warmup:
            return start + (peak - start) * (step + 1) / warmup
        rest = max(1, total - warmup)
        return end + (peak - end) * (1 + math.cos(math.pi * (step - warmup) / rest)) / 2

    return at


def warmup_multistep(
    peak: float, *, warmup: int, milestones: tuple[float, ...], factor: float = 0.1
) -> Schedule:
    """Linear warm-up, then `factor` once for every passed milestone (fractions of the run)."""

    def at(step: int, total: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * factor ** sum(step >= milestone * total for milestone in milestones)

    return at


def as_schedule(value: float | Schedule) -> Schedule:
    """A number as the constant schedule; a schedule as itself."""
    return value if callable(value) else constant(float(value))
