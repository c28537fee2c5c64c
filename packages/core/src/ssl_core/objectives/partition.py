"""The expensive half of every contrastive loss: log-sum-exp over all candidates, lean in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_core.objectives.precision import LN_2, LOG2_E, power_

_CHUNK_ENTRIES = {"cpu": 2**21}
"""Similarities alive at once: 8 MiB of float32 stay in a CPU's cache; elsewhere 256 MiB."""


def log_partition(
    anchors: Tensor,
    candidates: Tensor,
    *,
    weights: Tensor,
    excluded: Tensor | None = None,
    extra: Tensor | None = None,
) -> Tensor:
    """sum_i weights_i * log sum_j exp(anchors_i . candidates_j), a scalar.

    Arguments: `anchors` `[R, D]` (temperature already divided in), `candidates` `[M, D]`,
    `weights` `[R]` without gradient, `excluded` int64 `[R, E]` columns left out of each row's
    sum, `extra` `[R, P]` logits that join it. The `[R, M]` similarities are never kept: rows go
    through in chunks and the gradient is formed on the way, so memory is O((R + M) D). Not twice
    differentiable.
    """
    result: Tensor = _LogPartition.apply(anchors, candidates, weights, excluded, extra)
    return result


class _LogPartition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        weights: Tensor,
        excluded: Tensor | None,
        extra: Tensor | None,
    ) -> Tensor:
        need_anchors, need_candidates, _, _, need_extra = ctx.needs_input_grad
        wanted = need_anchors or need_candidates or need_extra
        grad_anchors = torch.empty_like(anchors) if need_anchors else None
        grad_candidates = torch.zeros_like(candidates) if need_candidates else None
        grad_extra = torch.empty_like(extra) if extra is not None and need_extra else None
        total = anchors.new_zeros(())
        chunks = row_chunks(anchors.shape[0], candidates.shape[0], anchors.device.type)
        buffer = anchors.new_empty(chunks[0].stop, candidates.shape[0])  # reused: fresh pages cost
        for rows in chunks:
            a = anchors[rows]  # [r, D]
            s = buffer[: a.shape[0]]  # [r, M], to base 2
            torch.addmm(s, a, candidates.T, beta=0, alpha=LOG2_E, out=s)
            if excluded is not None:
                s.scatter_(1, excluded[rows], -torch.inf)
            top = s.amax(1, keepdim=True)  # [r, 1]
            if extra is not None:
                top = torch.maximum(top, LOG2_E * extra[rows].amax(1, keepdim=True))
            p = power_(s.sub_(top))
            mass = p.sum(1, keepdim=True)  # [r, 1]
            joined = None if extra is None else (LOG2_E * extra[rows] - top).exp2()
            if joined is not None:
                mass = mass + joined.sum(1, keepdim=True)
            w = weights[rows].unsqueeze(1)
            total = total + (w * (LN_2 * top + mass.log())).sum()
            if not wanted:
                continue
            p.mul_(w / mass)  # the gradient with respect to the similarities
            if grad_anchors is not None:
                torch.mm(p, candidates, out=grad_anchors[rows])
            if grad_candidates is not None:
                grad_candidates.addmm_(p.T, a)
            if grad_extra is not None and joined is not None:
                grad_extra[rows] = joined * (w / mass)
        ctx.save_for_backward(grad_anchors, grad_candidates, grad_extra)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        anchors, candidates, extra = (
            None if saved is None else saved * grad for saved in ctx.saved_tensors
        )
        return anchors, candidates, None, None, extra


def row_chunks(rows: int, columns: int, device: str) -> list[slice]:
    """Rows of a `[rows, columns]` matrix in pieces of which one at a time is alive."""
    size = max(16, _CHUNK_ENTRIES.get(device, 2**26) // max(1, columns))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
