"""A log as curves: loss and its parts, schedules, health of the representation, speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_core.engine.optim import schedules
from ssl_core.recipe import Recipe
from ssl_core.report.charts import Point, line_chart
from ssl_core.report.document import section
from ssl_core.report.outcome import number
from ssl_core.runs.progress import parts_of

Records = Sequence[Mapping[str, Any]]

HEALTH = {
    "effective_rank": ("Effective rank of the representation", True),
    "feature_std": ("Spread of the representation (0 collapsed, 1 isotropic)", True),
    "alignment": ("Alignment: distance of two views of a record", True),
    "uniformity": ("Uniformity on the sphere (lower is more even)", False),
}
"""Name in the log -> (title, whether the axis starts at zero)."""


def curve(records: Records, name: str) -> list[Point]:
    """(step, value) of one name, where it was logged."""
    return [(record["step"], number(record[name])) for record in records if name in record]


def split_parts(records: Records) -> tuple[list[str], list[str]]:
    """Names of the loss (first) and its parts, and of the method's other numbers.

    A record lists the loss, then the parts that sum to it, then numbers that do not; so the parts
    end where their running sum is the loss. Where it never is, all count as parts.
    """
    names = list(dict.fromkeys(name for record in records for name in parts_of(record)))
    if not names:
        return [], []
    last = next((r for r in reversed(records) if r.get(names[0]) is not None), {})
    total, summed = last.get(names[0]), 0.0
    for place, name in enumerate(names[1:], 2):
        summed += number(last.get(name))
        if total is not None and math.isclose(summed, total, rel_tol=1e-3, abs_tol=1e-5):
            parts = names[:place]
            # A single part is the loss itself.
            return (parts if len(parts) > 2 else parts[:1]), names[place:]
    return names, []


def training(records: Records, recipe: Recipe) -> str:
    """The three sections of curves."""
    if not records:
        return ""
    parts, others = split_parts(records)
    loss = [line_chart("Loss and its parts", {name: curve(records, name) for name in parts})]
    loss.append(line_chart("Score while training", {"score": curve(records, "score")}))
    loss += [line_chart(name.replace("_", " "), {name: curve(records, name)}) for name in others]
    loss.append(line_chart("Gradient norm", {"norm": curve(records, "grad_norm")}, zero=True))
    loss += _schedules(records, recipe)
    health = [
        line_chart(title, {name: curve(records, name)}, zero=zero)
        for name, (title, zero) in HEALTH.items()
    ]
    waits = [(step, 100 * share) for step, share in curve(records, "data_wait")]
    speed = [
        line_chart("Samples per second", {"rate": curve(records, "samples_per_second")}, zero=True),
        line_chart("Time spent waiting for data, %", {"wait": waits}, zero=True),
    ]
    return "".join(
        section(name, title, f'<div class="grid2">{"".join(charts)}</div>' if any(charts) else "")
        for name, title, charts in (
            ("training", "Loss and schedules", loss),
            ("health", "Health of the representation", health),
            ("speed", "Speed", speed),
        )
    )


def _schedules(records: Records, recipe: Recipe) -> list[str]:
    """Learning rate as logged, and weight decay where it changes."""
    charts = [line_chart("Learning rate", {"lr": curve(records, "lr")}, zero=True)]
    if recipe.optimizer.weight_decay_end is not None:
        total = recipe.train.steps
        decay = [
            (record["step"], schedules(recipe.optimizer, record["step"] - 1, total)[1])
            for record in records
        ]
        charts.append(line_chart("Weight decay", {"decay": decay}, zero=True))
    return charts
