"""MSN (Assran et al., ECCV 2022): a view with patches dropped matches the whole view's prototypes.

    L = mean over anchors of CE(sharpen(p+), p) + balance (log K - H(mean p)),
    p = softmax(cos(z, prototypes) / T)

The teacher's target is the first view, whole. Anchors are the other views: the global ones lose
`mask_ratio` of their patches, the local ("focal") ones none. me-max keeps all prototypes in use.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.methods.masked import token_widths
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.masks import RandomMasker
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import msn_parts
from ssl_core.schedules import cosine
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], Tensor]


class MSN(Method):
    """Student on partly dropped views, teacher on a whole one, learned prototypes."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        prototypes: int = 1024,
        hidden: int = 2048,
        dim: int = 256,
        layers: int = 3,
        mask_ratio: float = 0.15,
        temperature: float = 0.1,
        sharpening: float = 0.25,
        balance: float = 1.0,
        sinkhorn_iterations: int = 0,
        momentum: float = 0.996,
    ) -> None:
        super().__init__(encoder, views)
        width, _ = token_widths(encoder)
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers, activation="gelu")
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, dim), dim=1))
        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        self.masker = RandomMasker(mask_ratio, mode="drop", count_rule="floor")
        self.temperature, self.sharpening = temperature, sharpening
        self.balance, self.sinkhorn_iterations = balance, sinkhorn_iterations
        self.momentum = cosine(momentum, 1.0)

    @property
    def backbone(self) -> nn.Module:
        return self.teacher.encoder

    def encode(self, views: Sequence[View]) -> Reps:
        """Anchors `[B, dim]` of all views but the first, and the target `[B, dim]`."""
        target, *anchors = sorted(views, key=lambda view: view.role != "global")
        masked = [self._dropped(view) for view in anchors if view.role == "global"]
        focal = [view for view in anchors if view.role != "global"]
        pooled = masked + ([f.pooled for f in self.features(focal)] if focal else [])
        z = self.projector(torch.cat(pooled)).split(len(target))
        with torch.no_grad():
            (taught,) = self.features([target], self.teacher.encoder)
            wanted = self.teacher.projector(taught.pooled)
        return list(z), wanted

    def _dropped(self, view: View) -> Tensor:
        tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        mask = self.masker(view.rng, tokens.values.shape[1], grid=tokens.grid)
        with dropout_keys(view.rng):
            pooled: Tensor = self.encoder.encode(tokens, mask).pooled  # type: ignore[operator]
        return pooled

    def loss(self, reps: Reps) -> Loss:
        anchors, target = reps
        parts = msn_parts(
            anchors,
            target,
            self.prototypes,
            temperature=self.temperature,
            sharpening=self.sharpening,
            balance=self.balance,
            sinkhorn_iterations=self.sinkhorn_iterations,
        )
        return Loss.of(parts)

    def after_step(self, step: Step) -> None:
        self.teacher.update(self, self.momentum(step.index, step.total), step.finite)
