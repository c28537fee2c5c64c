"""Linear probe: multinomial logistic regression on frozen features.

The strength of the L2 penalty is selected on a split of the training bank, never on test labels,
and the chosen model is fitted again on the whole bank (Kornblith et al. 2019 protocol).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.evaluation.logistic import Principal, logistic, principal
from ssl_core.rng import generator

GRID: tuple[float, ...] = tuple(float(c) for c in 10.0 ** np.arange(-4, 3))


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier on features standardised with the bank's statistics."""

    weight: np.ndarray
    """`[classes, D]`, on raw (not standardised) features."""
    bias: np.ndarray
    """`[classes]`."""
    classes: np.ndarray
    """The label of each row of `weight`."""
    c: float
    """The selected inverse penalty."""
    validation: float
    """Accuracy on the part of the bank that selected `c`."""
    converged: bool

    def predict(self, features: Tensor) -> np.ndarray:
        """Labels int64 `[N]` of `features [N, D]`."""
        logits = features.double().cpu().numpy() @ self.weight.T + self.bias
        predicted: np.ndarray = self.classes[logits.argmax(axis=1)]
        return predicted

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of right predictions, in [0, 1]."""
        return float(np.mean(self.predict(features) == labels.cpu().numpy()))


def linear_probe(
    bank: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    grid: Sequence[float] = GRID,
    max_iter: int = 500,
) -> Probe:
    """Fits a probe to `bank [N, D]` with labels int64 `[N]`.

    `grid` holds the inverse penalties to choose from. Raises `UserError` when there are fewer
    than two classes, or numbers that are not finite.
    """
    x = bank.double().cpu().numpy()
    classes, y = np.unique(labels.cpu().numpy(), return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"a linear probe needs at least two classes, got {len(classes)}")
    if not np.isfinite(x).all():
        rows = int((~np.isfinite(x).all(axis=1)).sum())
        raise UserError(f"a linear probe needs finite features; {rows} of {len(x)} rows are not")
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    coordinates = principal((x - mean) / scale)
    best, validation = _select(coordinates, y, seed=seed, grid=grid, max_iter=max_iter)
    model = logistic(coordinates.rows, coordinates.variance, y, c=best, max_iter=max_iter)
    weight = (coordinates.axes @ model.weight).T / scale
    return Probe(weight, model.bias - weight @ mean, classes, best, validation, model.converged)


def validation_rows(labels: np.ndarray, *, seed: int, share: float = 0.2) -> np.ndarray:
    """Bool `[N]`: `share` of each class (at least one row where a class has two), keyed."""
    chosen = np.zeros(len(labels), dtype=bool)
    random = generator("probe", seed)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = min(len(rows) - 1, max(1, round(share * len(rows))))
        chosen[rows[:count]] = True
    return chosen


def _select(
    coordinates: Principal, y: np.ndarray, *, seed: int, grid: Sequence[float], max_iter: int
) -> tuple[float, float]:
    """The penalty with the best validation accuracy (the strongest one among equals)."""
    held = validation_rows(y, seed=seed)
    if not held.any():  # every class has one row: nothing to select on
        return 1.0, float("nan")
    fitted, asked = coordinates.rows[~held], coordinates.rows[held]
    scores = {}
    for c in sorted(grid):
        model = logistic(fitted, coordinates.variance, y[~held], c=c, max_iter=max_iter)
        scores[c] = float(np.mean(model.predict(asked) == y[held]))
    best = max(scores, key=lambda c: scores[c])
    return best, scores[best]
