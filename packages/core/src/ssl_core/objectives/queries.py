"""Contrastive losses with a momentum encoder or a memory, by their field names.

Each is `info_nce` with the roles that its paper gives to queries, keys and memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.contrastive import info_nce
from ssl_core.objectives.precision import full_precision


def moco(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.2,
    hard: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """InfoNCE of `[B, D]` queries with their keys against a queue `[K, D]` (MoCo: He et al. 2020).

    Keys and queue receive no gradient; the other keys of the batch are no candidates. `hard`
    (`[B, S, D]`) are further negatives of each query, such as `mix_negatives`; `weights` as in
    `info_nce`. Put the keys into the queue after the loss. Collapsed value: log(K + 1).
    """
    return info_nce(
        queries,
        keys.detach(),
        temperature=temperature,
        symmetric=False,
        negatives=queue.detach(),
        in_batch=False,
        hard=None if hard is None else hard.detach(),
        weights=weights,
    )


def moco_v3(
    queries0: Tensor,
    queries1: Tensor,
    keys0: Tensor,
    keys1: Tensor,
    *,
    temperature: float = 1.0,
    gather: bool = True,
) -> Tensor:
    """2T [nce(q0, k1) + nce(q1, k0)] over the keys of all replicas (MoCo v3: Chen et al. 2021).

    All are `[B, D]`: predictions of the two views and projections of the momentum encoder, which
    receive no gradient. The factor 2T keeps the gradient's size independent of T near uniform.
    Collapsed value: 4 T log B.
    """
    total = queries0.new_zeros(())
    for q, k in ((queries0, keys1), (queries1, keys0)):
        total = total + info_nce(
            q, k.detach(), temperature=temperature, symmetric=False, gather=gather
        )
    return 2 * temperature * total


def nnclr(
    predicted0: Tensor,
    predicted1: Tensor,
    neighbours0: Tensor,
    neighbours1: Tensor,
    *,
    temperature: float = 0.1,
    gather: bool = True,
) -> Tensor:
    """Half of nce(NN(z0), p1) + nce(NN(z1), p0) (NNCLR: Dwibedi et al. 2021, eq. 4).

    `neighbours` are the nearest rows of a memory to the projections of each view (`nearest`) and
    receive no gradient; `predicted` are the predictor's outputs; all `[B, D]`. The neighbour is
    the anchor, the batch's predictions are the candidates. Collapsed value: log B.
    """
    total = predicted0.new_zeros(())
    for n, p in ((neighbours0, predicted1), (neighbours1, predicted0)):
        total = total + info_nce(
            n.detach(), p, temperature=temperature, symmetric=False, gather=gather
        )
    return total / 2


@torch.no_grad()
@full_precision
def nearest(queries: Tensor, bank: Tensor) -> Tensor:
    """The row of `bank` `[K, D]` with the largest cosine to each query `[B, D]`: `[B, D]`."""
    similar = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T  # [B, K]
    return bank[similar.argmax(1)]


@torch.no_grad()
@full_precision
def hardest(queries: Tensor, negatives: Tensor, *, count: int) -> Tensor:
    """Indices `[B, count]` of the rows of `negatives` `[K, D]` most similar to each query."""
    if not 0 < count <= negatives.shape[0]:
        raise ValueError(f"hardest: count must lie in 1..{negatives.shape[0]}, got {count}")
    similar = F.normalize(queries, dim=1) @ F.normalize(negatives, dim=1).T  # [B, K]
    return similar.topk(count, dim=1).indices


class Mixing(NamedTuple):
    """The draws of `mix_negatives`; indices into the pool of each query.

    `first`, `second` int64 `[B, S]` and `share` `[B, S]` in (0, 1): two pool rows and the first
    one's share. `other` int64 `[B, S']` and `query_share` `[B, S']` in (0, 0.5): a pool row and
    the query's share, below half so that the mixture stays a negative.
    """

    first: Tensor
    second: Tensor
    share: Tensor
    other: Tensor
    query_share: Tensor


@torch.no_grad()
@full_precision
def mix_negatives(queries: Tensor, pool: Tensor, draws: Mixing) -> Tensor:
    """Synthetic hard negatives `[B, S + S', D]` of unit norm (MoCHi: Kalantidis et al. 2020).

    norm(a n_i + (1 - a) n_j), then norm(b q + (1 - b) n_k), from each query's own `pool`
    `[B, N, D]` of hard negatives (`hardest`). No gradient, also none to the query inside.
    """
    q, n = F.normalize(queries, dim=1), F.normalize(pool, dim=2)
    row = torch.arange(n.shape[0], device=n.device).unsqueeze(1)
    a, b = draws.share.unsqueeze(2), draws.query_share.unsqueeze(2)
    pairs = a * n[row, draws.first] + (1 - a) * n[row, draws.second]
    own = b * q.unsqueeze(1) + (1 - b) * n[row, draws.other]
    return F.normalize(torch.cat([pairs, own], 1), dim=2)
