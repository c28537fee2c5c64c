"""Schedules against released codes and at their ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssl_core import recipe
from ssl_core.engine.optim import schedules
from ssl_core.schedules import (
    as_schedule,
    constant,
    cosine,
    infinite,
    linear,
    repeated,
    warmup_cosine,
    warmup_multistep,
)

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "schedules"
STEPS = 100

RATES = {
    # name: (schedule, source); 20 epochs of 5 steps
    "barlow_weights": warmup_cosine(0.4, warmup=50, end=0.0004, ramp="from_start"),
    "barlow_biases": warmup_cosine(0.0096, warmup=50, end=0.0000096, ramp="from_start"),
    "mocov3": warmup_cosine(0.6, warmup=20, ramp="from_start"),
    "dino": warmup_cosine(0.0005, warmup=20, end=1e-6, ramp="through_peak"),
    "dino_wd": cosine(0.04, 0.4),
    "dinov2": warmup_cosine(0.004, warmup=20, end=1e-6, frozen=5, ramp="through_peak"),
    "vicregl": warmup_cosine(0.6, warmup=20, end=0.6 * 0.002, ramp="from_start"),
}


def values(schedule, steps=STEPS):
    return np.array([schedule(step, steps) for step in range(steps)])


@pytest.mark.parametrize("name", RATES)
def test_rates_equal_released_codes(name):
    """barlowtwins, moco-v3, dino, dinov2 and VICRegL (facebookresearch), as the names say."""
    with np.load(GOLDEN / "learning_rates.npz") as g:
        np.testing.assert_allclose(values(RATES[name]), g[f"out_{name}"], rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize(
    ("name", "start", "shift", "rtol"),
    [
        ("dino", 0.996, 0, 1e-10),
        ("mocov3", 0.99, 0, 1e-10),
        ("solo_after_update", 0.99, 0, 1e-10),
        ("solo_as_used", 0.99, 1, 1e-10),
        ("obow", 0.99, 0, 1e-7),  # stored in a float buffer there
    ],
)
def test_momentum_equals_released_codes(name, start, shift, rtol):
    """dino, moco-v3, obow; solo-learn uses the value of the step before."""
    with np.load(GOLDEN / "ema_momentum.npz") as g:
        want = g[f"out_{name}"]
    schedule = cosine(start, 1.0)
    got = np.array([schedule(max(0, step - shift), STEPS) for step in range(STEPS)])
    np.testing.assert_allclose(got, want, rtol=rtol)


def test_the_three_ramps():
    shares = {
        ramp: [warmup_cosine(1.0, warmup=4, ramp=ramp)(step, 8) for step in range(5)]
        for ramp in ("moving", "from_start", "through_peak")
    }
    np.testing.assert_allclose(shares["moving"], [0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(shares["from_start"], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(shares["through_peak"], [0, 1 / 3, 2 / 3, 1, 1])


def test_ends():
    assert linear(2.0, 5.0)(0, 10) == 2
    assert linear(2.0, 5.0)(9, 10) == 5
    assert linear(2.0, 5.0, until=0.5)(4, 10) == 5
    assert linear(2.0, 5.0, until=0.5)(9, 10) == 5
    assert linear(2.0, 5.0, until=0.0)(1, 10) == 5
    assert cosine(1.0, 0.0)(0, 10) == 1
    assert cosine(1.0, 0.0)(5, 10) == pytest.approx(0.5)
    assert cosine(1.0, 0.0)(10, 10) == pytest.approx(0)
    assert cosine(1.0, 0.0)(25, 10) == pytest.approx(0)
    rate = warmup_cosine(1.0, warmup=2, start=0.5, end=0.1)
    assert [rate(0, 10), rate(1, 10), rate(2, 10)] == [0.75, 1.0, 1.0]
    assert rate(10, 10) == pytest.approx(0.1)
    assert warmup_cosine(1.0, warmup=10)(9, 10) == 1.0  # a run that is all warm-up
    assert warmup_cosine(1.0, warmup=0)(0, 1) == 1.0


def test_multistep():
    rate = warmup_multistep(1.0, warmup=2, milestones=(0.5, 0.8))
    np.testing.assert_allclose(values(rate, 10), [0.5, *[1.0] * 4, *[0.1] * 3, *[0.01] * 2])
    late = warmup_multistep(1.0, warmup=2, milestones=(0.5,), ramp="from_start")
    assert late(0, 10) == 0


def test_numbers_are_schedules():
    assert as_schedule(0.3)(7, 10) == 0.3
    assert as_schedule(2)(7, 10) == 2.0
    schedule = constant(0.1)
    assert as_schedule(schedule) is schedule


INFINITE = {"constant": 3e-4, "warmup": 20, "cooldown": 80}


def test_the_infinite_rate_equals_a_port():
    """tight-budget-llm-adaptation's scheduler, at every one of its 400 steps."""
    with np.load(GOLDEN.parent / "infinite_lr" / "schedule.npz") as g:
        peak, fixed, end, warmup, cooldown, anneal, total = g[
            "params_max_const_min_warm_cool_anneal_total"
        ]
        schedule = infinite(
            peak,
            constant=fixed,
            warmup=int(warmup),
            cooldown=int(cooldown),
            anneal=int(anneal),
            end=end,
        )
        got = [schedule(int(step), int(total)) for step in g["steps"]]
        np.testing.assert_allclose(got, g["lr"], rtol=1e-12)


def test_the_infinite_rate_joins_and_anneals_straight_in_its_logarithm():
    rate = infinite(1.5e-3, **INFINITE, anneal=60, end=1e-6)
    assert rate(20, 400) == pytest.approx(1.5e-3)
    assert rate(60, 400) == pytest.approx((1.5e-3 + 3e-4) / 2)
    assert rate(100, 400) == rate(339, 400) == rate(340, 400) == pytest.approx(3e-4)
    steps = np.diff(np.log([rate(step, 400) for step in range(340, 401)]))
    np.testing.assert_allclose(steps, np.log(1e-6 / 3e-4) / 60)
    with pytest.raises(ValueError, match="end must lie"):
        infinite(1.5e-3, **INFINITE, anneal=60)


def test_a_cut_does_not_change_the_infinite_rate():
    rate = infinite(1.5e-3, **INFINITE)
    assert [rate(step, 150) for step in range(150)] == [rate(step, 10**6) for step in range(150)]


def test_a_repeated_schedule_begins_anew_and_knows_no_total():
    once = warmup_cosine(0.4, warmup=3, end=0.1)
    again = repeated(once, 10)
    first = [once(step, 10) for step in range(10)]
    assert [again(step, 10**6) for step in range(25)] == [*first, *first, *first[:5]]


def test_a_recipe_can_begin_its_cosine_anew():
    once = recipe.Optimizer(lr=0.1, warmup=0.2)
    again = once.model_copy(update={"cycle": 10})
    first = [schedules(once, step, 10)[0] for step in range(10)]
    assert [schedules(again, step, 25)[0] for step in range(25)] == [*first, *first, *first[:5]]
    with pytest.raises(ValueError, match="infinite has no end"):
        recipe.Optimizer(lr=0.1, cycle=10, infinite={"constant": 0.05})
