"""DINO (Caron et al., ICCV 2021): match the teacher's sharpened, centred assignment of each view.

    L = mean over (teacher global u, student view v != u) of H(softmax((t_u - c) / T_t), s_v / T_s)

The centre c is a moving average of the mean teacher logits, taken after the loss. T_t rises from
`warmup_teacher_temperature` over the first `warmup` share of the run, the teacher's momentum from
`momentum` to 1 along half a cosine. The released code indexes T_t by epoch; here it is by step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import Norm, PrototypeHead
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import Centering, dino
from ssl_core.schedules import cosine, linear
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class DINO(Method):
    """Multi-crop self-distillation; the teacher sees the global views only."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        head_norm: Norm = "none",
        norm_last: bool = True,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_teacher_temperature: float = 0.04,
        warmup: float = 0.3,
        freeze_last: float = 0.01,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.head = PrototypeHead(
            width,
            prototypes,
            hidden=hidden,
            bottleneck=bottleneck,
            norm=head_norm,
            norm_last=norm_last,
        )
        self.teacher = Teacher(encoder=encoder, head=self.head)
        self.centering = Centering(prototypes, momentum=center_momentum)
        self.student_temperature = student_temperature
        self.temperature = linear(warmup_teacher_temperature, teacher_temperature, until=warmup)
        self.freeze_last = freeze_last
        self.momentum = cosine(momentum, 1.0)
        self._teacher_mean = torch.zeros(prototypes)

    @property
    def backbone(self) -> nn.Module:
        return self.teacher.encoder

    def before_step(self, step: int, total: int) -> None:
        super().before_step(step, total)
        self.head.frozen = step < self.freeze_last * total

    def encode(self, views: Sequence[View]) -> Reps:
        # Teacher pairs count as "the same view" by position, so the globals come first.
        ordered = sorted(views, key=lambda view: view.role != "global")
        globals_ = [view for view in ordered if view.role == "global"]
        student = [self.head(features.pooled) for features in self.features(ordered)]
        with torch.no_grad():
            taught = self.features(globals_, self.teacher.encoder)
            teacher = [self.teacher.head(features.pooled) for features in taught]
        return student, teacher

    def loss(self, reps: Reps) -> Loss:
        student, teacher = reps
        temperature = self.temperature(*self.progress)
        loss = dino(
            student,
            teacher,
            center=self.centering.center,
            student_temperature=self.student_temperature,
            teacher_temperature=temperature,
        )
        with torch.no_grad():
            logits = torch.cat(teacher).to(self.centering.center.dtype)
            self._teacher_mean = logits.mean(0)
            targets = ((logits - self.centering.center) / temperature).softmax(-1)
            entropy = torch.special.entr(targets).sum(-1).mean()
        return Loss.of({"dino": loss}, {"teacher_entropy": entropy})

    def after_step(self, step: Step) -> None:
        self.centering.update(self._teacher_mean, finite=step.finite)
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)
