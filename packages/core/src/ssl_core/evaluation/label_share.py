"""A linear probe that sees only a share of the labels."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_core.evaluation.probe import linear_probe
from ssl_core.rng import generator


def share_rows(labels: Tensor, share: float, *, seed: int = 0) -> Tensor:
    """Rows int64 of `share` of each class of `labels` (int64 `[N]`), at least one each, keyed."""
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    random = generator("label share", seed)
    parts = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        order = torch.from_numpy(random.permutation(len(rows)))
        # The larger share holds the smaller one's rows: curves over shares rise for one reason.
        parts.append(rows[order[: max(1, round(share * len(rows)))]])
    return torch.cat(parts).sort().values


def probe_on_share(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    share: float,
    seed: int = 0,
) -> float:
    """Accuracy on `queries [Q, D]` of a probe fitted on `share` of each class of `bank [N, D]`.

    The penalty is chosen within that share.
    """
    rows = share_rows(labels, share, seed=seed)
    probe = linear_probe(bank[rows], labels[rows], seed=seed)
    return probe.accuracy(queries, query_labels)
