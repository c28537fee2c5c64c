"""iBOT (Zhou et al., ICLR 2022): DINO, and the teacher's assignment of each hidden patch.

    L = DINO(class tokens, student globals masked) + w mean over hidden tokens of
        H(softmax((t_n - c') / T_t), s_n / T_s)      of the same view

The teacher sees whole views. Class tokens and patches share one head. The patch centre c' follows
the mean over all of the teacher's tokens; logits of visible ones are never formed for it, because
their mean is the product with the mean of the bottleneck. DINOv2 (Oquab et al. 2023) is this with
Sinkhorn assignments in place of centres (`targets="sinkhorn"`) and KoLeo on the class tokens, per
global view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.methods.masked import one_width, token_widths
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.grid_masks import VariedBlockMasker
from ssl_core.networks.heads import Norm, PrototypeHead
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import Centering, dino, ibot_patches, koleo, sinkhorn, swav
from ssl_core.rng import Rng
from ssl_core.schedules import cosine, linear
from ssl_core.views import View, ViewPolicy

Targets = Literal["center", "sinkhorn"]


@dataclass
class Reps:
    """Of each view: class tokens `[B, D]`; of global views also tokens `[B, N, D]` and masks."""

    student: list[Tensor]
    teacher: list[Tensor]
    student_tokens: list[Tensor]
    teacher_tokens: list[Tensor]
    hidden: list[Tensor]


class IBOT(Method):
    """Student on masked global and whole local crops, teacher on whole global ones."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        prototypes: int = 8192,
        hidden: int = 2048,
        bottleneck: int = 256,
        head_norm: Norm = "none",
        norm_last: bool = True,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        warmup_teacher_temperature: float = 0.04,
        warmup: float = 0.3,
        freeze_last: float = 0.01,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        mask: Literal["blocks", "random"] = "blocks",
        mask_share: float = 0.5,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        patch_weight: float = 1.0,
        koleo_weight: float = 0.0,
        targets: Targets = "center",
    ) -> None:
        super().__init__(encoder, views)
        width, _ = token_widths(encoder)
        one_width(encoder, "iBOT")
        if targets not in ("center", "sinkhorn"):
            raise ValueError(f"targets must be 'center' or 'sinkhorn', got {targets!r}")
        encoder.enable_mask_token()  # type: ignore[operator]
        low, high = mask_ratio
        self.masker = VariedBlockMasker(mask_share, (low, high), kind=mask)
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
        self.patch_centering = Centering(prototypes, momentum=center_momentum)
        self.student_temperature = student_temperature
        self.temperature = linear(warmup_teacher_temperature, teacher_temperature, until=warmup)
        self.freeze_last, self.momentum = freeze_last, cosine(momentum, 1.0)
        self.patch_weight, self.koleo_weight, self.targets = patch_weight, koleo_weight, targets
        self._means = (torch.zeros(prototypes), torch.zeros(prototypes))

    @property
    def backbone(self) -> nn.Module:
        return self.teacher.encoder

    def before_step(self, step: int, total: int) -> None:
        super().before_step(step, total)
        self.head.frozen = step < self.freeze_last * total

    def encode(self, views: Sequence[View]) -> Reps:
        globals_ = [view for view in views if view.role == "global"]
        locals_ = [view for view in views if view.role != "global"]
        with torch.no_grad():
            taught = self.features(globals_, self.teacher.encoder)
        masked, hidden = self._masked(globals_)
        student = [f.pooled for f in (*masked, *(self.features(locals_) if locals_ else []))]
        return Reps(
            student,
            [f.pooled for f in taught],
            [_tokens(f) for f in masked],
            [_tokens(f) for f in taught],
            hidden,
        )

    def _masked(self, views: Sequence[View]) -> tuple[list[Features], list[Tensor]]:
        """The student on masked views, all in one forward; what is hidden in each."""
        rng = Rng.cat([view.rng for view in views])
        tokens = self.encoder.tokenize(torch.cat([view.data for view in views]))  # type: ignore[operator]
        mask = self.masker(rng, tokens.values.shape[1], grid=tokens.grid)
        with dropout_keys(rng):
            whole: Features = self.encoder.encode(tokens, mask)  # type: ignore[operator]
        size = len(views[0])
        pairs = zip(whole.pooled.split(size), _tokens(whole).split(size), strict=True)
        return [Features(p, t) for p, t in pairs], list(mask.hidden.split(size))

    def loss(self, reps: Reps) -> Loss:
        head, teacher_head = self.head, self.teacher.head
        temperature = self.temperature(*self.progress)
        student = [head(x) for x in reps.student]
        with torch.no_grad():
            teacher = [teacher_head(x) for x in reps.teacher]
            z = [teacher_head.embed(x) for x in reps.teacher_tokens]  # type: ignore[operator]
            prototypes = teacher_head.weights()  # type: ignore[operator]
            middle = torch.stack([x.flatten(0, 1).mean(0) for x in z]).mean(0)
            self._means = (torch.cat(teacher).mean(0), prototypes @ middle)
        patches = [
            self._patches(head(tokens[hidden]), x[hidden] @ prototypes.T, hidden, temperature)
            for tokens, x, hidden in zip(reps.student_tokens, z, reps.hidden, strict=True)
        ]
        parts = {
            "dino": self._class_tokens(student, teacher, temperature),
            "patches": self.patch_weight * torch.stack(patches).mean(),
        }
        if self.koleo_weight:
            spread = [koleo(x) for x in reps.student[: len(reps.teacher)]]
            parts["koleo"] = self.koleo_weight * torch.stack(spread).sum()
        masked = torch.cat(reps.hidden).float().mean()
        return Loss.of(parts, {"masked": masked})

    def _class_tokens(
        self, student: list[Tensor], teacher: list[Tensor], temperature: float
    ) -> Tensor:
        if self.targets == "sinkhorn":
            codes = [sinkhorn(logits, temperature=temperature) for logits in teacher]
            return swav(student, codes, temperature=self.student_temperature)
        return dino(
            student,
            teacher,
            center=self.centering.center,
            student_temperature=self.student_temperature,
            teacher_temperature=temperature,
        )

    def _patches(
        self, student: Tensor, teacher: Tensor, hidden: Tensor, temperature: float
    ) -> Tensor:
        given = self.targets == "sinkhorn"
        return ibot_patches(
            student,
            sinkhorn(teacher, temperature=temperature) if given else teacher,
            hidden,
            center=self.patch_centering.center,
            student_temperature=self.student_temperature,
            teacher_temperature=temperature,
            given=given,
        )

    def after_step(self, step: Step) -> None:
        for centering, mean in zip(
            (self.centering, self.patch_centering), self._means, strict=True
        ):
            centering.update(mean, finite=step.finite)
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)


def _tokens(features: Features) -> Tensor:
    assert features.tokens is not None, "checked by token_widths"
    return features.tokens


def dinov2(
    encoder: nn.Module,
    views: ViewPolicy,
    *,
    prototypes: int = 65536,
    hidden: int = 2048,
    bottleneck: int = 256,
    head_norm: Norm = "none",
    teacher_temperature: float = 0.07,
    warmup_teacher_temperature: float = 0.04,
    warmup: float = 0.3,
    freeze_last: float = 0.01,
    momentum: float = 0.992,
    mask: Literal["blocks", "random"] = "blocks",
    mask_share: float = 0.5,
    mask_ratio: tuple[float, float] = (0.1, 0.5),
    koleo_weight: float = 0.1,
    targets: Targets = "sinkhorn",
) -> IBOT:
    """DINOv2 (Oquab et al. 2023): `IBOT` with its targets, KoLeo and momentum."""
    return IBOT(
        encoder,
        views,
        prototypes=prototypes,
        hidden=hidden,
        bottleneck=bottleneck,
        head_norm=head_norm,
        teacher_temperature=teacher_temperature,
        warmup_teacher_temperature=warmup_teacher_temperature,
        warmup=warmup,
        freeze_last=freeze_last,
        momentum=momentum,
        mask=mask,
        mask_share=mask_share,
        mask_ratio=mask_ratio,
        koleo_weight=koleo_weight,
        targets=targets,
    )
