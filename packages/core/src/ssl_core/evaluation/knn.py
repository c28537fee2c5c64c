"""Weighted k-nearest-neighbour classification: how good a representation is without training.

Wu et al. 2018 ("Unsupervised feature learning via non-parametric instance discrimination"), with
the usual k = 20 and temperature 0.07 (Caron et al. 2021). A query's class score is the sum of
exp(cosine / temperature) over those of its k nearest neighbours that carry the class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.evaluation.chunks import row_chunks


def knn_scores(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    exclude_self: bool = False,
) -> Tensor:
    """Class scores `[Q, classes]` of `queries [Q, D]` from `bank [N, D]`, labels int64 `[N]`.

    Rows are normalised here. Each row of scores sums to 1. With `exclude_self`, queries are the
    bank itself and no row counts as its own neighbour. k is cut to what the bank offers.
    """
    if len(bank) == 0 or len(bank) != len(bank_labels):
        raise ValueError(f"bank has {len(bank)} rows and {len(bank_labels)} labels")
    if exclude_self and len(queries) != len(bank):
        raise ValueError(f"exclude_self needs the bank as queries: {len(queries)} != {len(bank)}")
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    k = min(k, len(bank) - int(exclude_self))
    if k < 1:
        raise ValueError("a bank of one row has no neighbour but the row itself")
    out = queries.new_zeros(len(queries), classes)
    for rows in row_chunks(len(queries), len(bank)):
        similarity = queries[rows] @ bank.T  # [q, N]
        if exclude_self:
            own = torch.arange(rows.start, rows.stop, device=bank.device)
            similarity[own - rows.start, own] = -torch.inf
        nearest, index = similarity.topk(k, dim=1)  # [q, k]
        # Subtracting the largest keeps exp in range for small temperatures; a common factor of a
        # row changes no ranking.
        weight = ((nearest - nearest[:, :1]) / temperature).exp()
        weight = weight / weight.sum(dim=1, keepdim=True)
        out[rows] = out[rows].scatter_add(1, bank_labels[index], weight)
    return out


def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    k: int = 20,
    temperature: float = 0.07,
    exclude_self: bool = False,
) -> float:
    """Share of queries whose best-scored class is their own, in [0, 1]."""
    classes = int(torch.maximum(bank_labels.max(), query_labels.max())) + 1
    scores = knn_scores(
        bank,
        bank_labels,
        queries,
        classes=classes,
        k=k,
        temperature=temperature,
        exclude_self=exclude_self,
    )
    return float((scores.argmax(dim=1) == query_labels).double().mean())


def top_accuracy(scores: Tensor, labels: Tensor, n: int) -> float:
    """Share of rows whose label is among the `n` best-scored classes, in [0, 1]."""
    best = scores.topk(min(n, scores.shape[1]), dim=1).indices
    return float((best == labels[:, None]).any(dim=1).double().mean())
