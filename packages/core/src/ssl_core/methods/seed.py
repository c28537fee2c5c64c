"""SEED (Fang et al., ICLR 2021): a small student relates to a queue as its frozen teacher does.

    L = CE(softmax([t.t, t.Q] / T_t), softmax([s.t, s.Q] / T)),   Q earlier teacher embeddings

`teacher` is a finished run of the same domain (its folder in a recipe). All views are seen by
both; the first view's teacher embeddings enter the queue after the loss. As T_t goes to 0 this
is contrast with the teacher's own embedding as the positive.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.queue import Queue
from ssl_core.objectives import seed
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class SEED(Method):
    """Student encoder and head, frozen teacher, queue of the teacher's embeddings."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        teacher: nn.Module,
        hidden: int = 2048,
        queue: int = 65536,
        temperature: float = 0.2,
        teacher_temperature: float = 1e-4,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        dim: int = teacher.embed_dim  # type: ignore[assignment]
        self.teacher = teacher.requires_grad_(False)
        self.projector = MLPHead(width, dim, hidden=hidden, norm="none")
        self.queue = Queue(queue, dim)
        self.temperatures = {"temperature": temperature, "teacher_temperature": teacher_temperature}
        self._taught = torch.zeros(0, dim)

    def encode(self, views: Sequence[View]) -> Reps:
        with torch.no_grad():
            taught = [f.pooled for f in self.features(views, self.teacher.eval())]
        return [self.projector(f.pooled) for f in self.features(views)], taught

    def loss(self, reps: Reps) -> Loss:
        student, teacher = reps
        self._taught = teacher[0]
        losses = [
            seed(s, t, self.queue.rows, **self.temperatures)
            for s, t in zip(student, teacher, strict=True)
        ]
        return Loss.of({"seed": torch.stack(losses).mean()})

    def after_step(self, step: Step) -> None:
        self.queue.push(self._taught, finite=step.finite)
