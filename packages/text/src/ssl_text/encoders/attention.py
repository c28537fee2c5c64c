"""Attention for transformers models whose dropout is keyed by sample.

Their own attention drops weights with torch's global generator. The function here is registered
beside theirs: without dropout it is their fused kernel; with dropout it draws every row of the
attention matrix under a key of (sample, layer, head, query position), so that the draw does not
depend on how far a batch is padded or how it is split.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ssl_core.networks.dropout import current_keys
from ssl_core.networks.packing import current_packing

NAME = "keyed_dropout"
"""The value of `config._attn_implementation` that selects this attention."""

# Longer than any document; a row's key is head * _STRIDE + query position.
_STRIDE = 1 << 32


def keyed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention of `query`, `key`, `value` `[B, H, L, D]`; returns `[B, L, H, D]` and weights.

    Packed batches (`[1, H, T, D]`) attend within their documents: only here are they padded.
    """
    packing = current_packing()
    if packing is None:
        return _padded(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    query, key, value = (
        packing.unpack(x.transpose(1, 2)).transpose(1, 2) for x in (query, key, value)
    )
    out, weights = _padded(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return packing.pack(out), weights


def _padded(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float,
    scaling: float | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    if dropout == 0 or not module.training:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return out
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(2, 3) * scale  # [B, H, L, L]
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1)
    weights = weights * _kept(weights, dropout, module.dropout_stream) / (1 - dropout)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def _kept(weights: Tensor, p: float, stream: str) -> Tensor:
    """1 where a weight `[B, H, L, L]` stays, 0 where it is dropped."""
    batch, heads, length, width = weights.shape
    rng = current_keys(batch)
    place = torch.arange(heads, device=weights.device)[:, None] * _STRIDE
    place = (place + torch.arange(length, device=weights.device)).flatten()  # [H L]
    rows = type(rng)(rng.key.repeat_interleave(heads * length))
    rows = rows.fold(place.repeat(batch))
    kept = rows.uniform(f"attention {stream}", width) >= p
    return kept.view(batch, heads, length, width).to(weights.dtype)


def key_attention(model: nn.Module) -> None:
    """Names every module of `model`, so that each layer's attention draws its own stream."""
    for name, module in model.named_modules():
        module.dropout_stream = name


def _mask(*args: Any, **kwargs: Any) -> Tensor:
    """A boolean mask, always: leaving it out where nothing is padded would ask the device."""
    kwargs.update(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    packing = current_packing()
    if packing is not None:
        batch, length = packing.valid.shape
        kwargs.update(batch_size=batch, q_length=length, kv_length=length)
        kwargs["attention_mask"] = packing.valid
    mask: Tensor = sdpa_mask(*args, **kwargs)
    return mask


AttentionInterface.register(NAME, keyed_attention)
AttentionMaskInterface.register(NAME, _mask)
