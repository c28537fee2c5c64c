"""Pretext classification: which transformation, permutation, neighbour or instance was it?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.masked import masked_mean
from ssl_core.objectives.precision import full_precision


@full_precision
def pretext_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    ignore: int = -1,
) -> Tensor:
    """Cross-entropy of `[..., C]` logits, mean over entries whose label is not `ignore`.

    `labels` are int64 `[...]`, or probabilities `[..., C]` (soft bins of colourisation), which
    receive no gradient. `class_weights` `[C]` weigh each entry by its label's weight (by the
    expected weight for soft labels) without changing the divisor. Entries are counted over all
    replicas. Uniform (collapsed) logits cost log C.
    """
    soft = labels.is_floating_point()
    if labels.shape != (logits.shape if soft else logits.shape[:-1]):
        raise ValueError(
            f"pretext_cross_entropy: labels {tuple(labels.shape)} do not fit logits "
            f"{tuple(logits.shape)}; pass ids [...] or probabilities [..., C]"
        )
    classes = logits.shape[-1]
    if soft:
        target = labels.detach().reshape(-1, classes)
        kept = torch.ones_like(target[:, 0], dtype=torch.bool)
        weight = None if class_weights is None else target @ class_weights.to(target.dtype)
    else:
        target = labels.reshape(-1)
        kept = target != ignore
        target = torch.where(kept, target, 0)
        weight = None if class_weights is None else class_weights.to(logits.dtype)[target]
    losses = F.cross_entropy(
        logits.reshape(-1, classes), target, reduction="none", label_smoothing=label_smoothing
    )
    return masked_mean(losses if weight is None else losses * weight, kept)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of `[..., C]` logits whose largest entry is the label: above chance, it learns."""
    return (logits.argmax(-1) == labels).float().mean()
