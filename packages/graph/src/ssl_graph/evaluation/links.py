"""Link prediction: are held-out edges told from pairs without an edge?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ssl_graph.nodes.link_split import LinkSplit

Score = Literal["cosine", "dot", "logistic"]


@dataclass(frozen=True)
class Links:
    """How well true links rank."""

    auc: float
    """Probability that a true pair scores above a false one."""
    average_precision: float
    mrr: float
    """Mean over true pairs of 1 / rank among all false ones."""
    hits: dict[int, float]
    """Share of true pairs that score above the K-th best false one (OGB's Hits@K)."""


def link_prediction(
    features: Tensor, split: LinkSplit, *, score: Score = "cosine", ks: tuple[int, ...] = (10, 50)
) -> Links:
    """Scores held-out pairs from node features `[N, D]` of an encoder that saw `split.table`.

    "cosine" and "dot" learn nothing; "logistic" fits a logistic regression to the products of
    both ends on the training pairs (penalty 1, nothing is chosen on test pairs).
    """
    true, false = _scores(features, split, score)
    return rank_links(true, false, ks=ks)


def rank_links(true: np.ndarray, false: np.ndarray, *, ks: tuple[int, ...] = (10, 50)) -> Links:
    """Measures from scores alone; ties count half in AUC and rank and not at all in Hits@K."""
    from sklearn.metrics import average_precision_score, roc_auc_score  # type: ignore[import-untyped]

    truth = np.concatenate([np.ones(len(true)), np.zeros(len(false))])
    scores = np.concatenate([true, false])
    ordered = np.sort(false)
    above = len(false) - np.searchsorted(ordered, true, side="right")
    equal = np.searchsorted(ordered, true, side="right") - np.searchsorted(
        ordered, true, side="left"
    )
    rank = 1 + above + equal / 2
    hits = {k: 1.0 if k > len(false) else float((true > ordered[-k]).mean()) for k in ks}
    return Links(
        float(roc_auc_score(truth, scores)),
        float(average_precision_score(truth, scores)),
        float((1 / rank).mean()),
        hits,
    )


def _scores(features: Tensor, split: LinkSplit, score: Score) -> tuple[np.ndarray, np.ndarray]:
    z = features.double().cpu()

    def ends(pairs: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(pairs)
        return z[rows[:, 0]], z[rows[:, 1]]

    if score == "logistic":
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
        from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
        from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

        products = [(a * b).numpy() for a, b in map(ends, (split.train, split.train_false))]
        y = np.repeat([1, 0], [len(split.train), len(split.train_false)])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(np.concatenate(products), y)
        tested = [(a * b).numpy() for a, b in map(ends, (split.test, split.test_false))]
        found = [model.decision_function(rows) for rows in tested]
        return found[0], found[1]
    if score == "cosine":
        z = torch.nn.functional.normalize(z, dim=1)
    elif score != "dot":
        raise ValueError(f"score must be 'cosine', 'dot' or 'logistic', got {score!r}")
    pairs = [(a * b).sum(1).numpy() for a, b in map(ends, (split.test, split.test_false))]
    return pairs[0], pairs[1]
