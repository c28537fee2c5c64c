"""Semantic similarity and retrieval from sentence vectors, without any training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.errors import UserError


def spearman(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> float:
    """Rank correlation of two series `[N]`; ties share their mean rank. NaN if one is constant."""
    x, y = (_ranks(np.asarray(v, dtype=np.float64)) for v in (a, b))
    if x.shape != y.shape or len(x) < 2:
        raise ValueError(f"spearman: two series of one length >= 2, got {len(x)} and {len(y)}")
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / scale) if scale > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    mean: np.ndarray = (last - (counts - 1) / 2)[inverse]
    return mean


def sts(first: Tensor, second: Tensor, gold: Tensor | Sequence[float]) -> float:
    """Spearman of cosines of pairs `[N, D]`, `[N, D]` with gold similarities `[N]`.

    Give all pairs of a year at once: the usual "all" setting, not the mean over its subsets.
    """
    cosine = F.cosine_similarity(first.float(), second.float(), dim=1)
    return spearman(cosine.cpu().numpy(), np.asarray(gold, dtype=np.float64))


def read_pairs(path: Path) -> tuple[list[str], list[str], list[float]]:
    """Lines `score<TAB>sentence<TAB>sentence` (STS's order of columns may be reversed).

    The column that is a number on every line is the score. Raises `UserError` naming the line.
    """
    rows = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"pairs: {str(path)!r}: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != 3:
            raise UserError(f"pairs: line {number} of {path} has {len(cells)} columns, not 3")
        rows.append(cells)
    if len(rows) < 2:
        raise UserError(f"pairs: {str(path)!r} holds fewer than two pairs")
    for column in (0, 2):
        try:
            scores = [float(cells[column]) for cells in rows]
        except ValueError:
            continue
        first, second = (1, 2) if column == 0 else (0, 1)
        return [cells[first] for cells in rows], [cells[second] for cells in rows], scores
    raise UserError(f"pairs: neither the first nor the last column of {path} is a score")


def retrieval(
    queries: Tensor, documents: Tensor, relevant: Sequence[Sequence[int]], *, k: int = 10
) -> dict[str, float]:
    """nDCG@k, MRR@k and recall@k by cosine, means over queries.

    `queries` `[Q, D]`, `documents` `[N, D]`; `relevant[q]` lists the rows that answer query q, all
    equally well. A query without any is an error.
    """
    if len(relevant) != len(queries) or any(len(rows) == 0 for rows in relevant):
        raise UserError("retrieval: every query needs at least one relevant document")
    q, d = F.normalize(queries.float(), dim=1), F.normalize(documents.float(), dim=1)
    depth = min(k, len(d))
    gains = 1 / torch.log2(torch.arange(depth, dtype=torch.float64) + 2)
    ndcg, mrr, recall = [], [], []
    for row, wanted in zip(q, relevant, strict=True):
        order = (d @ row).topk(depth).indices
        hit = torch.isin(order.cpu(), torch.tensor(list(wanted)))
        ideal = gains[: min(len(wanted), depth)].sum()
        ndcg.append(float(gains[hit].sum() / ideal))
        places = hit.nonzero()
        mrr.append(1 / (1 + int(places[0])) if len(places) else 0.0)
        recall.append(int(hit.sum()) / len(wanted))
    names = (f"ndcg@{k}", f"mrr@{k}", f"recall@{k}")
    return {name: float(np.mean(v)) for name, v in zip(names, (ndcg, mrr, recall), strict=True)}
