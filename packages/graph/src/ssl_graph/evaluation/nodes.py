"""Node classification by a linear model on frozen features, on public and random splits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.rng import generator

GRID: tuple[float, ...] = tuple(float(c) for c in 2.0 ** np.arange(-10, 11))
"""GRACE's grid of inverse penalties, 2^-10 to 2^10."""


@dataclass(frozen=True)
class NodeScore:
    """Accuracy on the test nodes of one split; `validation` chose `c` before they were seen."""

    test: float
    validation: float
    c: float


def random_split(
    labels: Tensor, *, train: float = 0.1, val: float = 0.1, seed: int = 0
) -> dict[str, np.ndarray]:
    """Rows of train, val and test nodes, with shares of every class; unlabelled nodes in none.

    GRACE and its successors train on 10 %, validate on 10 % and test on the rest.
    """
    if train <= 0 or val < 0 or train + val >= 1:
        raise UserError(f"split: shares train={train}, val={val} leave nothing to test")
    y = labels.cpu().numpy()
    parts: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    for label in np.unique(y[y >= 0]):
        rows = generator("node split", seed, int(label)).permutation(np.flatnonzero(y == label))
        first = max(1, round(train * len(rows)))
        second = first + round(val * len(rows))
        for name, part in zip(parts, np.split(rows, [first, second]), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(rows)) for name, rows in parts.items()}


def node_classification(
    features: Tensor,
    labels: Tensor,
    split: Mapping[str, np.ndarray],
    *,
    grid: Sequence[float] = GRID,
    normalise: bool = True,
) -> NodeScore:
    """Multinomial logistic regression on `split["train"]`, C chosen on `split["val"]`.

    `features` `[N, D]`, `labels` int64 `[N]`; rows of length 1 with `normalise`, as GRACE's
    evaluation has them. The test part is scored once. Raises `UserError` for a part without
    labelled nodes.
    """
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    z = features.double().cpu()
    x = (torch.nn.functional.normalize(z, dim=1) if normalise else z).numpy()
    y = labels.cpu().numpy()
    rows = {name: np.asarray(part)[y[part] >= 0] for name, part in split.items()}
    for name in ("train", "val", "test"):
        if name not in rows or len(rows[name]) == 0:
            raise UserError(f"split: no labelled node in the {name} part")
    best: tuple[float, float, Any] | None = None
    for c in grid:
        model = LogisticRegression(C=c, max_iter=2000, solver="lbfgs")
        with warnings.catch_warnings():
            # A large C may not converge; such a candidate competes as it is.
            warnings.filterwarnings("ignore", category=ConvergenceWarning)
            model.fit(x[rows["train"]], y[rows["train"]])
        found = float(model.score(x[rows["val"]], y[rows["val"]]))
        if best is None or found > best[0]:
            best = (found, c, model)
    assert best is not None, "the grid is empty"
    test = float(best[2].score(x[rows["test"]], y[rows["test"]]))
    return NodeScore(test, best[0], best[1])
