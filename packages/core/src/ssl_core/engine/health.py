"""Is the representation healthy? Numbers for the log, and a verdict in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ssl_core.evaluation.geometry import alignment, effective_rank, feature_std, uniformity
from ssl_core.methods.base import Method

COLLAPSED_STD = 0.02
"""Below this spread (1 is isotropic, 0 constant) rows differ by rounding, not by content."""
COLLAPSED_RANK = 1.05
ROWS = 256
"""Rows the numbers are taken from: enough to tell, cheap beside a step."""
WORK_A_STEP = 2e6
"""Multiply-adds that looking may cost a step on average: about a twentieth of a millisecond."""
STILL_FALLING = 0.1
"""Undertrained: the last fifth of the log brought more than this share of the whole descent."""

Records = Sequence[Mapping[str, Any]]


def health_due(method: Method, step: int, *, every: int) -> bool:
    """Whether to look at the log point after `step`, when the log is written `every` steps.

    Always where features are narrow or batches small; else at the first log point after so many
    steps that looking costs a step no more than `WORK_A_STEP`. Depends on shapes and the step
    alone, so that a resumed run looks where the run would have.
    """
    if method.monitored is None:
        return False
    rows, width = min(ROWS, len(method.monitored)), method.monitored.shape[1]
    # Eigenvalues, then two Gram matrices, then passes over the features.
    work = 8 * min(rows, width) ** 3 + 2 * rows * rows * width + 100 * rows * width
    apart = max(1, math.ceil(work / WORK_A_STEP))
    before = (step - 1) // every * every
    return step // apart > before // apart


def measure_health(method: Method) -> dict[str, float]:
    """Effective rank, spread, uniformity of the newest features; alignment of two views.

    Features are those before any head, at most `ROWS` of them. Costs a copy to the host: for log
    points only.
    """
    if method.monitored is None or len(method.monitored) < 2:
        return {}
    features = _few(method.monitored)
    out = {
        "effective_rank": effective_rank(features),
        "feature_std": feature_std(features),
        "uniformity": uniformity(features),
    }
    if method.monitored_pair is not None:
        first, second = (_few(x) for x in method.monitored_pair)
        out["alignment"] = alignment(first, second)
    return out


def _few(x: Tensor) -> Tensor:
    return x[:ROWS].float()


def judge(records: Records) -> str:
    """ "healthy", "collapsing since step N: why", or "undertrained: why", from the log so far.

    Training is judged undertrained only at its end. A record without the numbers is passed over.
    """
    since = _collapsed_since(records)
    if since is not None:
        why = (
            f"spread {since['feature_std']:.3f} of 1, effective rank {since['effective_rank']:.1f}"
        )
        return f"collapsing since step {since['step']}: {why}"
    losses = [record["loss"] for record in records if record.get("loss") is not None]
    ended = bool(records) and records[-1]["step"] == records[-1]["steps"]
    if ended and len(losses) >= 10:
        fifth = len(losses) // 5
        first, before, last = (
            sum(part) / len(part)
            for part in (losses[:fifth], losses[-2 * fifth : -fifth], losses[-fifth:])
        )
        if before - last > STILL_FALLING * (first - last) > 0:
            share = 100 * (before - last) / (first - last)
            return f"undertrained: the last fifth of the run brought {share:.0f} % of the descent"
    return "healthy"


def _collapsed_since(records: Records) -> Mapping[str, Any] | None:
    """The first of the unbroken row of collapsed records at the end."""
    found = None
    for record in reversed(records):
        if record.get("feature_std") is None:
            continue
        if record["feature_std"] >= COLLAPSED_STD and record["effective_rank"] >= COLLAPSED_RANK:
            break
        found = record
    return found
