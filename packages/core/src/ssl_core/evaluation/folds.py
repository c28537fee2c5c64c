"""Cross-validated classifiers on frozen features: what small graph collections are scored by.

The penalty is chosen inside each fold's training part, never on its test part. Several released
evaluations report the best C, or the best epoch, of the test folds; their numbers are higher.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ssl_core.errors import UserError

GRID: tuple[float, ...] = tuple(float(c) for c in 10.0 ** np.arange(-3, 4))
"""InfoGraph's grid of inverse penalties."""

Classifier = Literal["svm", "logistic"]


@dataclass(frozen=True)
class Folds:
    """Accuracies of the folds, and the penalty each one chose."""

    accuracies: tuple[float, ...]
    chosen: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Sample standard deviation over folds."""
        return float(np.std(self.accuracies, ddof=1))


def cross_validate(
    features: Tensor,
    labels: Tensor,
    *,
    classifier: Classifier = "svm",
    folds: int = 10,
    inner: int = 5,
    grid: Sequence[float] = GRID,
    seed: int = 0,
) -> Folds:
    """Stratified `folds`-fold accuracy of an RBF SVM or a logistic regression.

    `features` `[N, D]` are standardised by each training part; `labels` int64 `[N]`, -1 is left
    out. C is the best of `grid` in an `inner`-fold cross-validation of the training part. Raises
    `UserError` where a class has fewer than `folds` samples.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y = labels.cpu().numpy()
    x = features.double().cpu().numpy()[y >= 0]
    y = y[y >= 0]
    counts = np.unique(y, return_counts=True)[1]
    if len(counts) < 2 or counts.min() < folds:
        smallest = int(counts.min()) if len(counts) else 0
        raise UserError(
            f"folds: {folds} folds of {len(counts)} classes, the smallest with {smallest} samples; "
            f"use fewer folds or more data"
        )
    inside = min(inner, int(counts.min() * (folds - 1) // folds))
    if inside < 2:
        raise UserError(f"folds: too few samples a class to choose C inside {folds} folds")
    model = make_pipeline(StandardScaler(), _model(classifier))
    grid_of = {f"{model.steps[-1][0]}__C": list(grid)}
    accuracies, chosen = [], []
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        splits = StratifiedKFold(inside, shuffle=True, random_state=seed)
        search = GridSearchCV(model, grid_of, cv=splits)
        with warnings.catch_warnings():
            # A large C may not converge; such a candidate competes as it is.
            warnings.filterwarnings("ignore", category=ConvergenceWarning)
            search.fit(x[train], y[train])
        accuracies.append(float(search.score(x[test], y[test])))
        chosen.append(float(next(iter(search.best_params_.values()))))
    return Folds(tuple(accuracies), tuple(chosen))


def _model(classifier: Classifier) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVC

    if classifier == "svm":
        return SVC()
    if classifier == "logistic":
        return LogisticRegression(max_iter=1000)
    raise ValueError(f"classifier must be 'svm' or 'logistic', got {classifier!r}")
