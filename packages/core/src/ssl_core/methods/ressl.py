"""ReSSL (Zheng et al., NeurIPS 2021): relate to earlier samples as the teacher does.

    L = CE(softmax(t.Q / T_t), softmax(s.Q / T)),   T_t < T,  Q a queue of teacher embeddings

The teacher sees the first view, which should be weakly augmented (policy "ressl"), the student
the others. There is no positive pair: only the distribution over the queue is matched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.queue import Queue
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import ressl
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], Tensor]


class ReSSL(Method):
    """Student on strong views, momentum teacher on a weak one, queue."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 4096,
        dim: int = 512,
        queue: int = 131072,
        temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        momentum: float = 0.999,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, norm="none")
        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        self.queue = Queue(queue, dim)
        self.temperatures = {"temperature": temperature, "teacher_temperature": teacher_temperature}
        self.momentum = momentum
        self._taught = torch.zeros(0, dim)

    def encode(self, views: Sequence[View]) -> Reps:
        weak, *strong = views
        student = [self.projector(f.pooled) for f in self.features(strong, joint=False)]
        with torch.no_grad():
            (taught,) = self.features([weak], self.teacher.encoder)
            teacher = self.teacher.projector(taught.pooled)
        return student, teacher

    def loss(self, reps: Reps) -> Loss:
        student, teacher = reps
        self._taught = teacher
        losses = [ressl(s, teacher, self.queue.rows, **self.temperatures) for s in student]
        return Loss.of({"ressl": torch.stack(losses).mean()})

    def after_step(self, step: Step) -> None:
        self.queue.push(self._taught, finite=step.finite)
        self.teacher.update(self, self.momentum, step.finite)
