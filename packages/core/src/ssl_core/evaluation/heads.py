"""Linear heads on frozen features for several labels at once, and for numbers.

Like the linear probe for classes: the L2 penalty is selected on a keyed split of the training
bank, never on test targets, and the chosen head is fitted again on the whole bank. Targets are
float `[N, T]` with NaN where a value is not known; unknown entries weigh nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.rng import shuffled

PENALTIES: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4)
"""Weights of half the squared norm against the mean loss of a record, strongest first."""


@dataclass(frozen=True)
class Head:
    """Outputs `features @ weight.T + bias`, on raw (not standardised) features; float64."""

    weight: Tensor
    """`[T, D]`."""
    bias: Tensor
    """`[T]`."""
    penalty: float

    def outputs(self, features: Tensor) -> Tensor:
        """`[N, T]` of features `[N, D]`."""
        return features.double().cpu() @ self.weight.T + self.bias


def ridge_head(bank: Tensor, targets: Tensor, *, seed: int = 0) -> Head:
    """Least squares with a penalty, in closed form; the penalty with the best R2 on the split."""

    def fit(x: Tensor, y: Tensor, penalty: float, start: Tensor) -> Tensor:
        return torch.stack([_ridge(x, column, penalty) for column in y.unbind(1)])

    return _selected(bank, targets, fit, lambda out, y: mean_score(r2(out, y)), seed)


def logistic_head(bank: Tensor, targets: Tensor, *, seed: int = 0) -> Head:
    """Independent logistic regressions for targets 0 or 1; the penalty with the best mAP."""
    return _selected(
        bank, targets, _logistic, lambda out, y: mean_score(average_precision(out, y)), seed
    )


def _selected(
    bank: Tensor,
    targets: Tensor,
    fit: Callable[[Tensor, Tensor, float, Tensor], Tensor],
    score: Callable[[Tensor, Tensor], float],
    seed: int,
) -> Head:
    x, y = bank.double().cpu(), targets.double().cpu()
    if not bool((~y.isnan()).any(0).all()):
        raise UserError("data: a target has no known value among the records to train on")
    mean, scale = x.mean(0), x.std(0, correction=0)
    scale = torch.where(scale == 0, 1.0, scale)
    x = F.pad((x - mean) / scale, (0, 1), value=1.0)  # [N, D + 1], the last column for the bias
    zero = x.new_zeros(y.shape[1], x.shape[1])
    best = PENALTIES[1]
    held = np.zeros(len(x), bool)
    held[shuffled(np.arange(round(0.2 * len(x))), len(x), "head", seed)] = True
    rest = torch.from_numpy(~held)
    if bool(held.any()) and bool((~y[rest].isnan()).any(0).all()):
        found, start = {}, zero
        for penalty in PENALTIES:
            start = fit(x[rest], y[rest], penalty, start)
            found[penalty] = score(x[~rest] @ start.T, y[~rest])
        best = max(found, key=lambda p: found[p] if found[p] == found[p] else -np.inf)
    whole = fit(x, y, best, zero)
    weight = whole[:, :-1] / scale
    return Head(weight, whole[:, -1] - weight @ mean, best)


def _ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """The minimiser of mean (x w - y)^2 + penalty |w|^2 over known y, bias unpenalised."""
    known = ~y.isnan()
    a, b = x[known], y[known]
    shrink = torch.full((x.shape[1],), penalty * len(a), dtype=x.dtype)
    shrink[-1] = 0.0
    # Least squares on stacked rows: as exact as the features allow, also where D > N.
    rows = torch.cat([a, torch.diag(shrink.sqrt())])
    goal = torch.cat([b, b.new_zeros(x.shape[1])])
    solution: Tensor = torch.linalg.lstsq(rows, goal[:, None], driver="gelsd").solution
    return solution[:, 0]


def _logistic(x: Tensor, y: Tensor, penalty: float, start: Tensor) -> Tensor:
    """All columns at once by L-BFGS, float64; columns do not interact."""
    known = ~y.isnan()
    goal = y.nan_to_num(0.0)
    weight = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [weight], max_iter=200, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        each = F.binary_cross_entropy_with_logits(x @ weight.T, goal, reduction="none")
        # Summed over columns, so that the number of labels changes no label's optimum.
        value = ((each * known).sum(0) / known.sum(0).clamp(min=1)).sum()
        value = value + penalty / 2 * weight[:, :-1].square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach()


def average_precision(outputs: Tensor, targets: Tensor) -> list[float]:
    """Mean precision at the ranks of each label's positives; NaN for labels without any.

    Equal outputs share the precision at the end of their tie, as in scikit-learn.
    """
    found = []
    for out, y in _columns(outputs, targets):
        order = out.argsort(descending=True)
        ranked, hits = out[order], y[order] > 0.5
        if not bool(hits.any()):
            found.append(float("nan"))
            continue
        last = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)])
        ends = last.nonzero()[:, 0]
        total = hits.cumsum(0)[ends].double()
        gained = torch.diff(total, prepend=total.new_zeros(1))
        found.append(float((gained * total / (ends + 1)).sum() / total[-1]))
    return found


def roc_area(outputs: Tensor, targets: Tensor) -> list[float]:
    """Chance that a positive is ranked above a negative, ties half; NaN where one kind lacks."""
    found = []
    for out, y in _columns(outputs, targets):
        hits = y > 0.5
        count = int(hits.sum())
        _, inverse, counts = out.unique(return_inverse=True, return_counts=True)
        ranks = (counts.cumsum(0) - (counts - 1) / 2)[inverse]  # mean rank of each tie, from 1
        pairs = count * (len(out) - count)
        gained = float(ranks[hits].sum()) - count * (count + 1) / 2
        found.append(gained / pairs if pairs else float("nan"))
    return found


def r2(outputs: Tensor, targets: Tensor) -> list[float]:
    """1 - squared error over variance, of each target; NaN for a constant one."""
    found = []
    for out, y in _columns(outputs, targets):
        spread = float((y - y.mean()).square().sum())
        found.append(1 - float((out - y).square().sum()) / spread if spread else float("nan"))
    return found


def _columns(outputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Known pairs of each target."""
    pairs = zip(outputs.double().unbind(1), targets.double().unbind(1), strict=True)
    return [(out[~y.isnan()], y[~y.isnan()]) for out, y in pairs]


def mean_score(values: Sequence[float]) -> float:
    """Mean over the targets that could be scored; NaN without any."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
