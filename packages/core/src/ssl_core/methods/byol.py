"""BYOL (Grill et al., NeurIPS 2020): predict the teacher's projection of the other view.

    L = 2 - 2 cos(q(z_1), sg z'_2) + 2 - 2 cos(q(z_2), sg z'_1)

The teacher (encoder and projector) is a moving average with momentum rising from `momentum` to 1
along half a cosine. On graphs with edge and feature drops this is BGRL without its projector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import byol
from ssl_core.schedules import cosine
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class BYOL(Method):
    """Student with a predictor, teacher without; no negatives."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 4096,
        dim: int = 256,
        layers: int = 2,
        momentum: float = 0.996,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers)
        self.predictor = MLPHead(dim, dim, hidden=hidden, layers=2)
        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        self.momentum = cosine(momentum, 1.0)

    def encode(self, views: Sequence[View]) -> Reps:
        student = [
            self.predictor(self.projector(f.pooled)) for f in self.features(views, joint=False)
        ]
        with torch.no_grad():
            taught = self.features(views, self.teacher.encoder, joint=False)
            targets = [self.teacher.projector(f.pooled) for f in taught]
        return student, targets

    def loss(self, reps: Reps) -> Loss:
        (p_1, p_2), (t_1, t_2) = reps
        return Loss.of({"byol": byol(p_1, p_2, t_1, t_2)})

    def after_step(self, step: Step) -> None:
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)
