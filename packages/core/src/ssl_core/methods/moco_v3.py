"""MoCo v3 (Chen, Xie & He, ICCV 2021): a momentum encoder's keys of the same batch, no queue.

    L = 2T [nce(q_1, k_2) + nce(q_2, k_1)],   q = predictor(projector(f(x))), k of the slow encoder

`predictor_norm` and `layers=3` are the vision transformer's variant; `freeze_patches` leaves the
patch embedding at its random values, which the paper found to stabilise training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import moco_v3
from ssl_core.schedules import cosine
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class MoCoV3(Method):
    """Student with projector and predictor, momentum encoder with projector."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 4096,
        dim: int = 256,
        layers: int = 2,
        predictor_norm: bool = False,
        temperature: float = 1.0,
        momentum: float = 0.99,
        freeze_patches: bool = False,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        if freeze_patches:
            _freeze_patches(encoder)
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers, last_norm=True)
        self.predictor = MLPHead(
            dim, dim, hidden=hidden, layers=2, last_norm=predictor_norm, last_bias=False
        )
        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        self.temperature = temperature
        self.momentum = cosine(momentum, 1.0)

    def encode(self, views: Sequence[View]) -> Reps:
        queries = [
            self.predictor(self.projector(f.pooled)) for f in self.features(views, joint=False)
        ]
        with torch.no_grad():
            taught = self.features(views, self.teacher.encoder, joint=False)
            keys = [self.teacher.projector(f.pooled) for f in taught]
        return queries, keys

    def loss(self, reps: Reps) -> Loss:
        (q_1, q_2), (k_1, k_2) = reps
        return Loss.of({"moco_v3": moco_v3(q_1, q_2, k_1, k_2, temperature=self.temperature)})

    def after_step(self, step: Step) -> None:
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)


def _freeze_patches(encoder: nn.Module) -> None:
    patches = getattr(encoder, "patch_embed", None)
    if not isinstance(patches, nn.Module):
        raise UserError(
            f"freeze_patches: {type(encoder).__name__} has no patch embedding; use a ViT, or leave "
            "freeze_patches off"
        )
    patches.requires_grad_(False)
