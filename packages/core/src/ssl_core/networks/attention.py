"""Scaled dot-product attention (Vaswani et al. 2017), the faster way that the device has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.precision import LOG2_E

_FEW = 32
"""Keys, up to which torch spends more on each row of weights than on what it holds."""
_MANY = 8192
"""Weights, from which whole arrays of them are worth their calls."""
_SHORT = 384
"""Keys, up to which the weights are small beside what else a layer keeps."""


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(d) + bias) v: `[B, heads, N, d]` of queries, `[B, heads, M, d]` of both
    others, to `[B, heads, N, d]`.

    `bias` broadcasts to `[B, heads, N, M]`; a bool one says who may be attended to. This is torch's
    fused operator, but on a CPU (`tools/bench/attention.py`): there few keys are learned from
    faster by separate products with a softmax of whole arrays, which cannot be differentiated
    twice, and in bfloat16 the operator takes several times as long for short rows as separate
    products, or, under a bias, as itself in float32.
    """
    if bias is not None and bias.dtype is not torch.bool:
        bias = bias.to(q.dtype)
    # What is exported keeps one form for sequences of any length.
    if q.device.type == "cpu" and not torch.compiler.is_compiling():
        half = q.dtype == torch.bfloat16
        if bias is None and (half or _full(q)) and _worth_arrays(q, k):
            return _batched(_FewKeys.apply, q, k, v)
        if half and k.shape[-2] <= _SHORT:
            if bias is None:
                return _batched(_by_products, q, k, v)
            return _widened(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _full(q: Tensor) -> bool:
    """Whether products of these numbers are taken in float32 or better (in autocast: less)."""
    return q.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")


def _worth_arrays(q: Tensor, k: Tensor) -> bool:
    """Whether to learn from few keys, with so many weights in all that calls are not what they
    cost, and outside `torch.func`, which knows torch's own operators alone."""
    keys = k.shape[-2]
    many = 0 < keys <= _FEW and q.shape[:-1].numel() * keys >= _MANY
    return many and q.requires_grad and not torch._C._are_functorch_transforms_active()


def _widened(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """The fused operator in float32."""
    mask = bias if bias.dtype is torch.bool else bias.float()
    with torch.autocast("cpu", enabled=False):  # which would have it in bfloat16 again
        out = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return out.to(q.dtype)


def _batched(way: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All heads of all rows as one batch, `[H, N, d]` and `[H, M, d]`, by `way`."""
    out = way(*(x.flatten(0, -3) for x in (q, k, v)))
    return out.view(*q.shape[:-1], v.shape[-1])


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """With the weights, `[H, N, M]`, in memory."""
    return torch.bmm(_scores(q, k).softmax(-1), v)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5)


def _widest(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _FewKeys(torch.autograd.Function):
    """`[H, N, d]`, `[H, M, d]`, `[H, M, d]` to `[H, N, d]`, with weights P of `[H, N, M]`.

    With dP the gradient of P = softmax(S), that of S is P (dP - sum_j P_j dP_j). torch's softmax
    goes through rows one by one, there and back; here every step is of the whole array, in float32.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = _widest(_scores(q, k))
        powers = scores.sub_(scores.amax(-1, keepdim=True)).mul_(LOG2_E).exp2_()
        weights = powers.div_(powers.sum(-1, keepdim=True)).to(q.dtype)
        ctx.save_for_backward(q, k, v, weights)
        return torch.bmm(weights, v)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, weights = ctx.saved_tensors
        by_scores = _widest(torch.bmm(by_out, v.mT)).mul_(weights)
        by_scores = by_scores.sub_(weights * by_scores.sum(-1, keepdim=True))
        by_scores = by_scores.mul_(q.shape[-1] ** -0.5).to(q.dtype)
        return (
            torch.bmm(by_scores, k),
            torch.bmm(by_scores.mT, q),
            torch.bmm(weights.mT, by_out),
        )
