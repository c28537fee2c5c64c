"""Losses of audio methods whose negatives are other moments of the same recording."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import all_sum
from ssl_core.objectives import masked_mean
from ssl_core.objectives.precision import full_precision
from ssl_core.rng import Rng


@full_precision
def patch_nce(
    predicted: Tensor, target: Tensor, *, over: Literal["targets", "predictions"] = "targets"
) -> Tensor:
    """Which hidden patch is it? Plain dot products among n hidden patches of one recording (SSAST).

    -log softmax(c_i . x_j)[i], mean over `[B, n, P]`; the softmax runs over the targets j of each
    prediction (the paper) or over the predictions of each target (the released code). Equal
    targets cost log n.
    """
    logits = predicted @ target.detach().transpose(1, 2)  # [B, n (predictions), n (targets)]
    if over == "predictions":
        logits = logits.transpose(1, 2)
    elif over != "targets":
        raise ValueError(f"over must be 'targets' or 'predictions', got {over!r}")
    return -logits.log_softmax(-1).diagonal(dim1=1, dim2=2).mean()


@full_precision
def frame_nce(positive: Tensor, negative: Tensor, valid: Tensor | None = None) -> Tensor:
    """-log softmax of the positive's logit among its negatives', mean over valid anchors.

    `positive` is `[B, M]` and `negative` `[B, M, K]`; a negative at minus infinity is left out.
    Equal logits cost log(K + 1).
    """
    loss = torch.cat([positive.unsqueeze(-1), negative], dim=-1).logsumexp(-1) - positive
    return loss.mean() if valid is None else masked_mean(loss, valid)


def other_moments(rng: Rng, stream: str, own: Tensor, count: Tensor, negatives: int) -> Tensor:
    """Random indices below `count` (`[B]`) that are not `own` (`[B, M]`): int64 `[B, M, K]`.

    Drawn with replacement, as released code does.
    """
    most = (count - 1).clamp(min=1)[:, None, None]
    drawn = rng.integers(stream, own.shape[1], negatives, high=most)
    return drawn + (drawn >= own.unsqueeze(-1))


@full_precision
def code_diversity(probabilities: Tensor, valid: Tensor | None = None) -> Tensor:
    """(G V - sum of the groups' perplexities) / (G V): 0 when all V codes are used evenly.

    `probabilities` is `[B, M, G, V]`; their mean is taken over valid rows of all replicas
    (wav2vec 2.0: Baevski et al. 2020, eq. 4, in the released perplexity form).
    """
    groups, codes = probabilities.shape[-2:]
    if valid is None:
        valid = torch.ones_like(probabilities[..., 0, 0], dtype=torch.bool)
    rows = probabilities[valid]  # [R, G, V]
    # The sum carries gradients over replicas; each then counts its own share of them.
    mean = all_sum(rows.sum(0)) / all_sum(rows.new_tensor(float(len(rows)))).clamp(min=1)
    perplexity = (-(mean * (mean + 1e-7).log()).sum(-1)).exp().sum()
    return (groups * codes - perplexity) / (groups * codes)


@full_precision
def cosine_logits(anchor: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """cos(anchor, candidate) / temperature; shapes broadcast but for the last axis."""
    return F.cosine_similarity(anchor, candidates, dim=-1) / temperature
