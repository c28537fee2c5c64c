"""Noise-contrastive estimation against a memory bank, as a binary question about each row."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import all_mean
from ssl_core.objectives.precision import full_precision


def _scores(
    queries: Tensor, targets: Tensor, negatives: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Cosines over temperature with a query's own target `[B]` and with the negatives `[B, K]`."""
    q, t, n = (F.normalize(x, dim=-1) for x in (queries, targets, negatives))
    far = q @ n.T if n.dim() == 2 else torch.einsum("bd,bkd->bk", q, n)
    return (q * t).sum(1) / temperature, far / temperature


@torch.no_grad()
@full_precision
def memory_log_norm(
    queries: Tensor,
    targets: Tensor,
    negatives: Tensor,
    *,
    size: int,
    temperature: float = 0.07,
) -> Tensor:
    """log of `size` times the mean of exp(s / T) over all scores of all replicas, 0-dim.

    An estimate of the sum over a bank of `size` rows, from the rows met; `memory_nce` keeps the
    first one (Wu et al. 2018). Arguments as there.
    """
    own, far = _scores(queries, targets, negatives, temperature)
    every = torch.cat([own.unsqueeze(1), far], 1)
    largest = 1 / temperature  # scores are cosines: a bound that all replicas share
    return all_mean((every - largest).exp().mean()).log() + largest + math.log(size)


@full_precision
def memory_nce(
    queries: Tensor,
    targets: Tensor,
    negatives: Tensor,
    log_norm: Tensor,
    *,
    size: int,
    temperature: float = 0.07,
) -> Tensor:
    """Which rows of a bank are the query's own? -log h(own) - sum_k log(1 - h(row k)), mean over B.

    h = p / (p + K / `size`) with p = exp(s / T) / Z over cosines s: the chance that a row with
    probability p was meant and not one of K drawn evenly (Gutmann & Hyvarinen 2010; Wu et al. 2018;
    PIRL: Misra & van der Maaten 2020). The released code adds 1.2e-7 to each denominator.

    Arguments:
        queries: `[B, D]`; the only input with a gradient. All are normalised inside.
        targets: `[B, D]`, the bank's rows of the same samples.
        negatives: `[K, D]` rows for all, or `[B, K, D]` for each query.
        log_norm: log Z, 0-dim, held constant (`memory_log_norm`).
        size: rows of the bank.

    Collapsed value (all cosines 1 and log Z = log size + 1 / T): log(1 + K) + K log(1 + 1 / K).
    """
    own, far = _scores(queries, targets.detach(), negatives.detach(), temperature)
    # log odds of h; K / size is how often the noise draws a row.
    shift = log_norm.detach() + math.log(far.shape[1] / size)
    return F.softplus(shift - own).mean() + F.softplus(far - shift).sum(1).mean()
