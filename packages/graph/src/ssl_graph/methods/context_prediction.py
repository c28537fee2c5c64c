"""Context prediction (Hu et al., ICLR 2020): which surroundings belong to a substructure?

    L = BCE(s_i . c_i, 1) + negatives * BCE(s_i . c_j, 0),  j = i shifted by 1 .. negatives

s is the centre's vector in its ball, by the encoder people keep; c the mean over overlap nodes
(the release's "cbow") of another encoder on the ring around. Contexts are shifted over the batch
of all replicas. Graphs too small for a ring are left out, as in the release.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import gather, rank
from ssl_core.methods.base import Loss, Method
from ssl_core.objectives import masked_mean
from ssl_core.objectives.precision import full_precision
from ssl_core.views import View, ViewPolicy
from ssl_graph.encoders.fresh import fresh_copy

Reps = tuple[Tensor, Tensor, Tensor]


class ContextPrediction(Method):
    """An encoder of balls, a context encoder of rings; the `context` views."""

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, negatives: int = 1) -> None:
        super().__init__(encoder, views)
        if negatives < 1:
            raise ValueError(f"negatives must be at least 1, got {negatives}")
        self.context_encoder = fresh_copy(encoder)
        self.negatives = negatives

    def encode(self, views: Sequence[View]) -> Reps:
        (ball,) = self.features(views[:1])
        ring = self.context_encoder(views[1].data)
        weight = views[1].params["overlap"].to(ring.tokens.dtype)[..., None]
        context = (ring.tokens * weight).sum(1) / weight.sum(1).clamp(min=1)
        return ball.pooled, context, views[1].params["valid"]

    def loss(self, reps: Reps) -> Loss:
        return Loss.of({"context": context_loss(*reps, negatives=self.negatives)})


@full_precision
def context_loss(balls: Tensor, contexts: Tensor, valid: Tensor, *, negatives: int = 1) -> Tensor:
    """softplus(-s c) + negatives * softplus(s c'), for `[B, D]` and `valid` `[B]`.

    Contexts of invalid rows never serve, also not as negatives: the shift walks over valid rows.
    Zero vectors cost (1 + negatives) log 2.
    """
    everyone, usable = gather(contexts), gather(valid.to(contexts.dtype)) > 0
    first = rank() * len(balls)
    own = torch.arange(first, first + len(balls), device=balls.device)
    place = usable.cumsum(0) - 1  # of each valid row among the valid ones
    rows = usable.nonzero()[:, 0]
    true = F.softplus(-(balls * everyone[own]).sum(1))
    loss = masked_mean(true, valid)
    if len(rows) < 2:
        return loss
    false = []
    for shift in range(1, negatives + 1):
        other = rows[(place[own].clamp(min=0) + shift) % len(rows)]
        false.append(F.softplus((balls * everyone[other]).sum(1)))
    return loss + negatives * masked_mean(
        torch.stack(false, 1), valid[:, None].expand(-1, negatives)
    )
