"""Few labels: accuracy of a linear classifier fitted on a handful of records of each class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.rng import generator


@dataclass(frozen=True)
class FewShot:
    """Accuracy over draws of the labelled records: mean and sample standard deviation."""

    shots: int
    draws: int
    mean: float
    std: float


def few_shot(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    shots: int,
    draws: int = 10,
    seed: int = 0,
    c: float = 1.0,
) -> FewShot:
    """Fits on `shots` records of each class of `bank [N, D]`, asks `queries [Q, D]`.

    Features are standardised with the whole bank's statistics, which needs no labels. With so few
    labels nothing is left to choose a penalty on: it is fixed (inverse penalty `c`). Draws are
    keyed: the same records for every representation. A class with fewer records gives all it has.
    """
    if shots < 1 or draws < 1:
        raise ValueError(f"shots and draws must be at least 1, got {shots} and {draws}")
    x, y = bank.double().cpu().numpy(), labels.cpu().numpy()
    if len(np.unique(y)) < 2:
        raise UserError(f"few-shot evaluation needs two classes or more, got {len(np.unique(y))}")
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale == 0] = 1.0
    x = (x - mean) / scale
    asked, known = (queries.double().cpu().numpy() - mean) / scale, query_labels.cpu().numpy()
    found = [
        _accuracy(x, y, asked, known, chosen(y, shots, seed, draw), c) for draw in range(draws)
    ]
    return FewShot(
        shots, draws, float(np.mean(found)), float(np.std(found, ddof=min(1, draws - 1)))
    )


def chosen(labels: np.ndarray, shots: int, seed: int, draw: int) -> np.ndarray:
    """Rows of up to `shots` records of each class."""
    random = generator("few shot", seed, shots, draw)
    rows = [
        random.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)
    ]
    return np.concatenate(rows)


def _accuracy(
    x: np.ndarray, y: np.ndarray, asked: np.ndarray, known: np.ndarray, rows: np.ndarray, c: float
) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # A handful of rows in many dimensions is separable: the fit is good long before it ends.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=200).fit(x[rows], y[rows])
    return float(np.mean(model.predict(asked) == known))
