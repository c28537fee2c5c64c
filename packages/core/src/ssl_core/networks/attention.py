"""Scaled dot-product attention (Vaswani et al. 2017), the faster way that the device has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SHORT = 384
"""Keys, up to which the weights are small beside what else a layer keeps."""


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(d) + bias) v: `[B, heads, N, d]` of queries, `[B, heads, M, d]` of both
    others, to `[B, heads, N, d]`.

    `bias` broadcasts to `[B, heads, N, M]`; a bool one says who may be attended to. This is torch's
    fused operator, but in bfloat16 on a CPU: for short rows that takes several times as long as
    separate products, or, under a bias, as itself in float32 (`tools/bench/attention.py`).
    """
    if bias is not None and bias.dtype is not torch.bool:
        bias = bias.to(q.dtype)
    slow = q.device.type == "cpu" and q.dtype == torch.bfloat16
    # What is exported keeps one form for sequences of any length.
    if not slow or torch.compiler.is_compiling() or k.shape[-2] > _SHORT:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    if bias is None:
        return _by_products(q, k, v)
    mask = bias if bias.dtype is torch.bool else bias.float()
    with torch.autocast("cpu", enabled=False):  # which would have it in bfloat16 again
        out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return out.to(q.dtype)


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All heads of all rows as one batch of products, with their N x M weights in memory."""
    q_, k_, v_ = (x.flatten(0, -3) for x in (q, k, v))
    scores = torch.baddbmm(q.new_empty(()), q_, k_.mT, beta=0, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), v_).view(*q.shape[:-1], v.shape[-1])
