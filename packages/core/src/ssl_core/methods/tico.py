"""TiCo (Zhu et al. 2022): invariance to a slow encoder, away from the running covariance.

    L = 1 - mean z_1.z'_2 + rho mean z_1^T C z_1,   C <- beta C + (1 - beta) mean z_1 z_1^T

Unit embeddings; z' is the momentum encoder's. C already holds the new batch, without gradient,
and is stored after the step. `symmetric` averages both directions over one covariance of both
views.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import RunningCovariance, tico
from ssl_core.schedules import cosine
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class TiCo(Method):
    """Student, momentum encoder, running covariance."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 4096,
        dim: int = 256,
        rho: float = 8.0,
        beta: float = 0.9,
        momentum: float = 0.99,
        symmetric: bool = False,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden)
        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        self.covariance = RunningCovariance(dim, momentum=beta)
        self.rho = rho
        self.momentum = cosine(momentum, 1.0)
        self.symmetric = symmetric
        self._blended = torch.zeros(dim, dim)

    def encode(self, views: Sequence[View]) -> Reps:
        first, second = views
        shown, known = ([first, second], [second, first]) if self.symmetric else ([first], [second])
        student = [self.projector(f.pooled) for f in self.features(shown, joint=False)]
        with torch.no_grad():
            taught = self.features(known, self.teacher.encoder, joint=False)
            teacher = [self.teacher.projector(f.pooled) for f in taught]
        return student, teacher

    def loss(self, reps: Reps) -> Loss:
        student, teacher = reps
        self._blended = self.covariance.blended(torch.cat(student))
        losses = [
            tico(z, t, self._blended, rho=self.rho) for z, t in zip(student, teacher, strict=True)
        ]
        return Loss.of({"tico": torch.stack(losses).mean()})

    def after_step(self, step: Step) -> None:
        self.covariance.update(self._blended, finite=step.finite)
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)
