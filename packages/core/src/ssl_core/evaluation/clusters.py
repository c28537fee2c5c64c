"""Do clusters of the features, found without labels, agree with the labels?

k-means is fitted without labels and scored once, at the end; no epoch, start or number of
clusters is chosen by the score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ssl_core.errors import UserError


@dataclass(frozen=True)
class Agreement:
    """How well a partition agrees with labels; all are 1 for a perfect one."""

    accuracy: float
    """Share right under the best one-to-one matching of clusters to classes (Hungarian)."""
    nmi: float
    """Normalised mutual information (arithmetic mean of entropies)."""
    ari: float
    """Adjusted Rand index; 0 expected by chance."""
    f1: float
    """Macro F1 under the same matching."""


def agreement(assigned: np.ndarray | Tensor, labels: np.ndarray | Tensor) -> Agreement:
    """Scores cluster numbers int64 `[N]` against labels int64 `[N]`; labels of -1 are left out.

    With more clusters than classes the unmatched clusters count as wrong.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import (
        adjusted_rand_score,
        f1_score,
        normalized_mutual_info_score,
    )

    found, truth = _integers(assigned), _integers(labels)
    if found.shape != truth.shape:
        raise ValueError(f"agreement: {found.shape} cluster numbers for {truth.shape} labels")
    found, truth = found[truth >= 0], truth[truth >= 0]
    if len(truth) == 0:
        raise UserError("clusters: not one sample has a label to compare with")
    width = int(max(found.max(), truth.max())) + 1
    table = np.zeros((width, width), dtype=np.int64)
    np.add.at(table, (found, truth), 1)
    clusters, classes = linear_sum_assignment(-table)
    matched = np.empty(width, dtype=np.int64)
    matched[clusters] = classes
    predicted = matched[found]
    present = np.unique(truth)
    return Agreement(
        float((predicted == truth).mean()),
        float(normalized_mutual_info_score(truth, found)),
        float(adjusted_rand_score(truth, found)),
        float(f1_score(truth, predicted, labels=present, average="macro", zero_division=0.0)),
    )


def cluster(features: Tensor, count: int, *, starts: int = 20, seed: int = 0) -> np.ndarray:
    """k-means of `features [N, D]`: cluster numbers int64 `[N]`, the best of `starts` starts."""
    from sklearn.cluster import KMeans

    if not 1 <= count <= len(features):
        raise UserError(f"clusters: {count} clusters of {len(features)} samples")
    rows = features.float().cpu().numpy()
    found: np.ndarray = KMeans(count, n_init=starts, random_state=seed).fit_predict(rows)
    return found.astype(np.int64)


def _integers(values: np.ndarray | Tensor) -> np.ndarray:
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return array.astype(np.int64)
