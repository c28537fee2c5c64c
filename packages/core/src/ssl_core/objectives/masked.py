"""Losses over hidden tokens only: `sum over hidden / number hidden`, counted over all replicas."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.distributed import all_sum, world_size
from ssl_core.objectives.precision import full_precision


class Hides(Protocol):
    """Anything with `hidden` (bool `[B, N]`): which tokens the loss counts."""

    @property
    def hidden(self) -> Tensor: ...


@full_precision
def masked_mean(values: Tensor, hidden: Tensor) -> Tensor:
    """Mean of `values` (`[B, N]`, or any shape) over entries where `hidden` is True.

    `hidden` may also hold weights >= 0. The divisor is the count over all replicas divided by
    their number, so that averaging over replicas gives the mean over every hidden entry, also
    when counts differ. Nothing hidden anywhere costs 0.
    """
    weight = hidden.to(values.dtype)
    with torch.no_grad():
        total = all_sum(weight.sum())
        # A float weight may sum to less than one; only an exact zero must not divide.
        total = torch.where(total > 0, total, torch.ones_like(total))
    # where, not a product alone: what a network says about padding may be non-finite.
    kept = torch.where(weight > 0, values, torch.zeros_like(values))
    return (kept * weight).sum() * (world_size() / total)


@full_precision
def masked_pixels(predicted: Tensor, target: Tensor, mask: Hides) -> Tensor:
    """Squared error, mean within a token, then over hidden tokens (MAE: He et al. 2022).

    `predicted` and `target` are `[B, N, P]`. Nothing is normalised here; see
    `normalise_patches`. With normalised targets of P numbers a zero prediction costs (P - 1)/P.
    """
    error = F.mse_loss(predicted, target.detach(), reduction="none").mean(-1)
    return masked_mean(error, mask.hidden)


@full_precision
def masked_l1(predicted: Tensor, target: Tensor, mask: Hides) -> Tensor:
    """Absolute error, mean within a token, then over hidden tokens (SimMIM: Xie et al. 2022).

    `predicted` and `target` are `[B, N, P]`. The released code adds 1e-5 to the pixel count,
    which is left out here.
    """
    error = F.l1_loss(predicted, target.detach(), reduction="none").mean(-1)
    return masked_mean(error, mask.hidden)


@full_precision
def masked_smooth_l1(
    predicted: Tensor, target: Tensor, mask: Hides, *, beta: float = 1.0
) -> Tensor:
    """`smooth_l1`, mean within a token, then over hidden tokens (data2vec: Baevski et al. 2022)."""
    error = F.smooth_l1_loss(predicted, target.detach(), beta=beta, reduction="none").mean(-1)
    return masked_mean(error, mask.hidden)


@full_precision
def masked_token_cross_entropy(logits: Tensor, ids: Tensor, mask: Hides) -> Tensor:
    """Cross-entropy of the true ids at hidden tokens (BERT: Devlin et al. 2019; BEiT).

    `logits` is `[B, N, V]`, or `[M, V]` when the decoder already kept only the M hidden rows, in
    row-major order of `mask.hidden`; `ids` is int64 `[B, N]`. Only hidden rows reach the
    log-softmax. Uniform (collapsed) logits cost log V.
    """
    hidden = mask.hidden
    rows = logits[hidden] if logits.dim() == hidden.dim() + 1 else logits  # [M, V]
    picked = ids[hidden]
    if rows.shape[0] != picked.shape[0]:
        raise ValueError(
            f"masked_token_cross_entropy: {rows.shape[0]} rows of logits for "
            f"{picked.shape[0]} hidden tokens"
        )
    losses = F.cross_entropy(rows, picked, reduction="none")
    return masked_mean(losses, torch.ones_like(picked, dtype=torch.bool))


@full_precision
def normalise_patches(patches: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Each token of `[B, N, P]` to mean 0, variance 1 over its P numbers (MAE).

    (t - mean) / sqrt(var + eps) with the unbiased variance. Computed as layer norm, whose variance
    is the biased one, times a factor: several times as fast as taking the variance by itself.
    """
    numbers = patches.shape[-1]
    share = (numbers - 1) / numbers
    # Layer norm of flat patches far from 0 would cancel large numbers: the mean goes first.
    centred = patches - patches.mean(-1, keepdim=True)
    normalised: Tensor = F.layer_norm(centred, (numbers,), eps=eps * share) * share**0.5
    return normalised


@full_precision
def normalise_channels(patches: Tensor, channels: int, *, eps: float = 1e-6) -> Tensor:
    """Each channel of each token of `[B, N, P]` to mean 0, deviation 1 (VideoMAE).

    (t - mean) / (std + eps) with the unbiased deviation, over the P / `channels` numbers of a
    channel; the channel is the fastest index of a token. Predicting zero costs (n - 1) / n for n
    numbers a channel.
    """
    x = patches.unflatten(-1, (-1, channels))  # [B, N, P / C, C]
    normalised: Tensor = (x - x.mean(-2, keepdim=True)) / (x.std(-2, keepdim=True) + eps)
    return normalised.flatten(-2)
