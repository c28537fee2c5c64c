"""Schedules: pure functions of (step, total steps); nothing about them is saved.

A schedule is called with the index of the step about to be taken, `0 <= step < total`. Released
codes disagree about where a ramp starts and where its last value falls; the arguments say which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

Schedule = Callable[[int, int], float]

Ramp = Literal["moving", "from_start", "through_peak"]
"""Which values a warm-up of W steps takes, as shares of the way from start to peak.

- "moving": 1/W, 2/W ... 1. The first step already moves; the cosine begins at the peak again.
- "from_start": 0, 1/W ... (W-1)/W; the first cosine step is the only one at the peak (Barlow
  Twins, MoCo v3, MAE).
- "through_peak": 0, 1/(W-1) ... 1, a linspace with both ends (DINO, DINOv2).
"""

_SHARE: dict[str, Callable[[int, int], float]] = {
    "moving": lambda step, warmup: (step + 1) / warmup,
    "from_start": lambda step, warmup: step / warmup,
    "through_peak": lambda step, warmup: step / max(1, warmup - 1),
}


def constant(value: float) -> Schedule:
    """`value` at every step."""
    return lambda step, total: value


def linear(start: float, end: float, *, until: float = 1.0) -> Schedule:
    """From `start` at step 0 to `end` at the last step of the fraction `until`, then constant.

    With one value an epoch this is DINO's teacher temperature: a linspace with both ends.
    """

    def at(step: int, total: int) -> float:
        length = max(1.0, until * total - 1)
        return start + (end - start) * min(1.0, step / length)

    return at


def cosine(start: float, end: float) -> Schedule:
    """Half a cosine: `start` at step 0, `end` would be reached at step `total`.

    EMA momentum (BYOL, MoCo v3, DINO) and DINO's weight decay. Constant after `total`.
    """

    def at(step: int, total: int) -> float:
        return _half_cosine(start, end, step / max(1, total))

    return at


def warmup_cosine(
    peak: float,
    *,
    warmup: int,
    end: float = 0.0,
    start: float = 0.0,
    frozen: int = 0,
    ramp: Ramp = "moving",
) -> Schedule:
    """Linear from `start` to `peak` over `warmup` steps, then half a cosine towards `end`.

    `frozen` steps at exactly 0 come first (DINOv2). `end` would be reached at step `total`; no
    step has it. `ramp` says which values the warm-up takes.
    """
    share = _SHARE[ramp]

    def at(step: int, total: int) -> float:
        if step < frozen:
            return 0.0
        if step < frozen + warmup:
            return start + (peak - start) * share(step - frozen, warmup)
        rest = max(1, total - warmup - frozen)
        return _half_cosine(peak, end, (step - warmup - frozen) / rest)

    return at


def warmup_multistep(
    peak: float,
    *,
    warmup: int,
    milestones: tuple[float, ...],
    factor: float = 0.1,
    ramp: Ramp = "moving",
) -> Schedule:
    """Linear warm-up, then `factor` once for every passed milestone (fractions of the run)."""
    share = _SHARE[ramp]

    def at(step: int, total: int) -> float:
        if step < warmup:
            return peak * share(step, warmup)
        return peak * factor ** sum(step >= milestone * total for milestone in milestones)

    return at


def infinite(
    peak: float,
    *,
    constant: float,
    warmup: int,
    cooldown: int,
    anneal: int = 0,
    end: float = 0.0,
    ramp: Ramp = "from_start",
) -> Schedule:
    """Rates that need no planned end, for training that goes on when new data comes.

        step < W            peak * step / W
        step < W + C        constant + (peak - constant) / 2 * (1 + cos(pi (step - W) / C))
        until the annealing constant
        last A steps        constant * (end / constant)^((step - (total - A)) / A)

    with `warmup` W, `cooldown` C, `anneal` A. Without annealing a step's rate does not depend on
    `total`, so that a run which is continued has the rates of one that was never cut. Annealing
    makes a model to use; further training starts from before it. `end` would be reached at step
    `total`. Singh et al. 2025 (arXiv 2503.02844). Ports disagree on the exponent's denominator; A
    is the one that ends at `end`. Raises `ValueError` where annealing has no positive `end`.
    """
    if anneal and not 0 < end <= constant:
        raise ValueError(f"annealing is geometric: end must lie in (0, {constant}], got {end}")
    share = _SHARE[ramp]

    def at(step: int, total: int) -> float:
        if anneal and step >= total - anneal:
            return float(constant * (end / constant) ** ((step - (total - anneal)) / anneal))
        if step < warmup:
            return peak * share(step, warmup)
        return _half_cosine(peak, constant, (step - warmup) / max(1, cooldown))

    return at


def repeated(schedule: Schedule, length: int) -> Schedule:
    """`schedule` over `length` steps, again and again; it does not depend on the run's total.

    A warm-up and cosine that begins anew when new data comes re-warms to its peak (warm restarts,
    Loshchilov & Hutter, ICLR 2017).
    """
    return lambda step, total: schedule(step % length, length)


def as_schedule(value: float | Schedule) -> Schedule:
    """A number as the constant schedule; a schedule as itself."""
    return value if callable(value) else constant(float(value))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2
