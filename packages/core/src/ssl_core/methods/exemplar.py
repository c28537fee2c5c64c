"""Exemplar (Dosovitskiy et al., NeurIPS 2014) in its triplet form (Kolesnikov et al., CVPR 2019).

    L = mean over pairs of views and samples of max(0, margin + d(a, p) - d(a, n))

d is the distance of unit vectors, n the nearest view of another sample that is farther than p.
Every sample is a class of its own; the first form, a classifier with one output for each image,
stops growing at some thousand images. The released code of the second normalises along the batch
instead of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.objectives import triplet
from ssl_core.views import View, ViewPolicy


class Exemplar(Method):
    """Several views of each sample, a linear embedding, triplets."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        dim: int = 1000,
        margin: float = 0.5,
        select: Literal["hardest", "semi_hard", "all"] = "semi_hard",
    ) -> None:
        super().__init__(encoder, views)
        self.head = nn.Linear(encoder.embed_dim, dim)  # type: ignore[arg-type]
        self.margin, self.select = margin, select

    def encode(self, views: Sequence[View]) -> list[Tensor]:
        if len(views) < 2:
            raise UserError("views: exemplar compares views of a sample; use a policy of two views")
        return [self.head(features.pooled) for features in self.features(views)]

    def loss(self, reps: list[Tensor]) -> Loss:
        losses = [
            triplet(anchor, positive, margin=self.margin, select=self.select)
            for anchor, positive in permutations(reps, 2)
        ]
        return Loss.of({"triplet": torch.stack(losses).mean()})
