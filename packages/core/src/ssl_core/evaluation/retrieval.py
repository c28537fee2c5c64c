"""Retrieval: whether the nearest rows are the ones that belong together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.evaluation.chunks import row_chunks


def recall_at_k(
    queries: Tensor,
    gallery: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    *,
    ks: Sequence[int] = (1, 5, 10),
    exclude_self: bool = False,
) -> dict[int, float]:
    """R@k: share of queries with a row of their own id among the k nearest by cosine.

    `queries [Q, D]`, `gallery [G, D]`, ids int64 `[Q]` and `[G]`: class labels for semantic
    retrieval, row numbers for instance retrieval. Queries whose id is nowhere in the gallery
    count as misses. With `exclude_self`, queries are the gallery and a row never finds itself.
    Each k is cut to the size of the gallery.
    """
    if exclude_self and len(queries) != len(gallery):
        raise ValueError(f"exclude_self needs equal sets: {len(queries)} != {len(gallery)}")
    queries, gallery = F.normalize(queries, dim=1), F.normalize(gallery, dim=1)
    available = len(gallery) - int(exclude_self)
    if available < 1 or len(queries) == 0:
        raise ValueError(f"nothing to retrieve: {len(queries)} queries, {available} candidates")
    deepest = min(max(ks), available)
    hits = dict.fromkeys(ks, 0)
    for rows in row_chunks(len(queries), len(gallery)):
        similarity = queries[rows] @ gallery.T
        if exclude_self:
            own = torch.arange(rows.start, rows.stop, device=gallery.device)
            similarity[own - rows.start, own] = -torch.inf
        index = similarity.topk(deepest, dim=1).indices  # [q, deepest]
        found = (gallery_ids[index] == query_ids[rows, None]).cumsum(dim=1) > 0
        for k in ks:
            hits[k] += int(found[:, min(k, deepest) - 1].sum())
    return {k: count / len(queries) for k, count in hits.items()}


def instance_recall(
    queries: Tensor, gallery: Tensor, *, ks: Sequence[int] = (1,)
) -> dict[int, float]:
    """R@k where row i of `queries` belongs to row i of `gallery`: two views of one sample."""
    ids = torch.arange(len(queries), device=queries.device)
    return recall_at_k(queries, gallery, ids, ids, ks=ks)
