"""Feature distillation: a student regresses the pooled features of a frozen encoder.

    L = mean over views of 2 - 2 cos(g(f(x)), f'(x))      ("cosine"), or of |g(f(x)) - LN(f'(x))|^2

The plain form that CompRess, DisCo and others build on. `teacher` is a finished run of the same
domain (its folder in a recipe); for "mse" its features are layer-normalised first, so that no
dimension outweighs the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import mse, negative_cosine
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class FeatureDistillation(Method):
    """Student encoder and head, frozen teacher."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        teacher: nn.Module,
        hidden: int = 2048,
        layers: int = 2,
        distance: Literal["cosine", "mse"] = "cosine",
    ) -> None:
        super().__init__(encoder, views)
        if distance not in ("cosine", "mse"):
            raise ValueError(f"distance must be 'cosine' or 'mse', got {distance!r}")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        dim: int = teacher.embed_dim  # type: ignore[assignment]
        self.teacher = teacher.requires_grad_(False)
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers)
        self.distance = distance

    def encode(self, views: Sequence[View]) -> Reps:
        with torch.no_grad():
            taught = [f.pooled for f in self.features(views, self.teacher.eval())]
        return [self.projector(f.pooled) for f in self.features(views)], taught

    def loss(self, reps: Reps) -> Loss:
        losses = [self._distance(s, t) for s, t in zip(*reps, strict=True)]
        return Loss.of({"distillation": torch.stack(losses).mean()})

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.distance == "cosine":
            return 2 + 2 * negative_cosine(student, teacher)
        wide = teacher.to(torch.promote_types(teacher.dtype, torch.float32))
        return mse(student, F.layer_norm(wide, teacher.shape[1:]))
