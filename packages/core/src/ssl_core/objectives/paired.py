"""Two towers: pairs of different things, such as images and their captions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_core.distributed import gather as gather_rows
from ssl_core.distributed import rank
from ssl_core.objectives.contrastive import info_nce
from ssl_core.objectives.partition import row_chunks
from ssl_core.objectives.precision import full_precision


@full_precision
def clip(
    images: Tensor,
    texts: Tensor,
    log_scale: Tensor | float,
    *,
    max_scale: float = 100.0,
    gather: bool = True,
) -> Tensor:
    """Half of image-to-text and text-to-image cross-entropy (CLIP: Radford et al. 2021).

    Logits are cosines times exp(`log_scale`), at most `max_scale`; the paper learns the scale from
    log(1 / 0.07). `images` and `texts` are `[B, D]`, row by row one pair, normalised inside.
    Collapsed value: log N over the N pairs of all replicas.
    """
    log_scale = torch.as_tensor(log_scale, dtype=images.dtype, device=images.device)
    scale = log_scale.exp().clamp(max=max_scale)
    return info_nce(images, texts, temperature=1 / scale, gather=gather)


@full_precision
def siglip(
    images: Tensor,
    texts: Tensor,
    log_scale: Tensor | float,
    bias: Tensor | float,
    *,
    gather: bool = True,
) -> Tensor:
    """-1/B sum_ij log sigmoid(y_ij (exp(log_scale) s_ij + bias)) (SigLIP: Zhai et al. 2023).

    y_ij is 1 for the pair, -1 otherwise; s are cosines of `[B, D]` images and texts, normalised
    inside. The paper learns scale and bias from log 10 and -10. With all similarities equal to s
    it costs softplus(-l) + (N - 1) softplus(l), l = exp(log_scale) s + bias, over N pairs.
    Memory O(N D): the similarities go through in chunks of rows. Not twice differentiable.
    """
    if images.dim() != 2 or images.shape != texts.shape:
        raise ValueError(
            f"siglip: images and texts of one shape [B, D] are needed, "
            f"got {tuple(images.shape)} and {tuple(texts.shape)}"
        )
    x, y = F.normalize(images, dim=1), F.normalize(texts, dim=1)
    everyone = gather_rows(y) if gather else y  # [N, D]
    scale, shift = (torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (log_scale, bias))
    first = rank() * x.shape[0] if gather else 0
    result: Tensor = _SigmoidPairs.apply(x * scale.exp(), everyone, shift, first)
    return result / x.shape[0]


class _SigmoidPairs(torch.autograd.Function):
    """Sum over all pairs of -log sigmoid(y (x . t + shift)); row i's partner is first + i."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, shift: Tensor, first: int) -> Tensor:
        grad_x, grad_t = torch.empty_like(x), torch.zeros_like(t)
        total, grad_shift = x.new_zeros(()), x.new_zeros(())
        for rows in row_chunks(x.shape[0], t.shape[0], x.device.type):
            logits = torch.addmm(shift, x[rows], t.T)  # [r, N]
            pair = torch.arange(rows.start, rows.stop, device=x.device).unsqueeze(1) + first
            own = logits.gather(1, pair)  # [r, 1]
            total = total + F.softplus(logits).sum() - own.sum()  # softplus(-l) = softplus(l) - l
            g = logits.sigmoid_()
            g.scatter_add_(1, pair, torch.full_like(own, -1.0))
            torch.mm(g, t, out=grad_x[rows])
            grad_t.addmm_(g.T, x[rows])
            grad_shift = grad_shift + g.sum()
        ctx.save_for_backward(grad_x, grad_t, grad_shift)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_t, grad_shift = (saved * upstream[0] for saved in ctx.saved_tensors)
        return grad_x, grad_t, grad_shift, None
