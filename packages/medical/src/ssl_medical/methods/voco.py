"""VoCo (Wu et al., CVPR 2024): where in the scan a crop lies, told by its likeness to a grid.

    l_i = relu(cos(target, base_i)),   y_i = share of the target that base i covers
    L_pos = -sum_i y_i log(1 - |y_i - l_i|) / sum_i y_i
    L_neg = sum_{y_i = 0} l_i^2 / #{y_i = 0}
    L_reg = mean_{i < j} relu(cos(b_i, sg b_j))^2

The first two are averaged over (student target, teacher base) and (teacher target, student base);
the teacher is a moving average with constant momentum. 1 - |y - l| is kept above 1e-6 in the
logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives.precision import full_precision
from ssl_core.views import View, ViewPolicy

Side = tuple[Tensor, Tensor]


class VoCo(Method):
    """Student and teacher; projections of base crops `[B, K, D]` and target crops `[B, T, D]`."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 2048,
        dim: int = 2048,
        layers: int = 3,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers, last_norm=True)
        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        self.momentum = momentum

    def encode(self, views: Sequence[View]) -> tuple[Side, Side, Tensor]:
        student = self._side(views, self.encoder, self.projector)
        with torch.no_grad():
            teacher = self._side(views, self.teacher.encoder, self.teacher.projector)
        overlaps = [view.params["overlap"] for view in views if view.role == "target"]
        return student, teacher, torch.stack(overlaps, dim=1)  # [B, T, K]

    def _side(self, views: Sequence[View], encoder: nn.Module, projector: nn.Module) -> Side:
        count = len(views[0])
        pooled = torch.cat([features.pooled for features in self.features(views, encoder)])
        each = projector(pooled).unflatten(0, (len(views), count)).transpose(0, 1)
        bases = sum(view.role == "base" for view in views)
        return each[:, :bases], each[:, bases:]

    def loss(self, reps: tuple[Side, Side, Tensor]) -> Loss:
        (base, target), (taught_base, taught_target), overlap = reps
        first = overlap_likeness(target, taught_base, overlap)
        second = overlap_likeness(taught_target, base, overlap)
        parts = {n: (a + b) / 2 for n, a, b in zip(("pos", "neg"), first, second, strict=True)}
        return Loss.of({**parts, "reg": base_spread(base)})

    def after_step(self, step: Step) -> None:
        self.teacher.update(self, self.momentum, step.finite)


@full_precision
def overlap_likeness(target: Tensor, base: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:
    """L_pos and L_neg of targets `[B, T, D]`, bases `[B, K, D]` and shares `[B, T, K]`."""
    like = F.relu(F.normalize(target, dim=-1) @ F.normalize(base, dim=-1).transpose(1, 2))
    overlap = overlap.to(like.dtype)
    near = (1 - (overlap - like).abs()).clamp(min=1e-6).log()
    away = (overlap == 0).to(like.dtype)
    positive = -(overlap * near).sum() / overlap.sum().clamp(min=1e-6)
    return positive, (away * like.square()).sum() / away.sum().clamp(min=1)


@full_precision
def base_spread(base: Tensor) -> Tensor:
    """L_reg of bases `[B, K, D]`; the gradient reaches only the earlier of each pair."""
    unit = F.normalize(base, dim=-1)
    like = F.relu(unit @ unit.detach().transpose(1, 2)).square()
    first, second = torch.triu_indices(like.shape[1], like.shape[1], offset=1, device=like.device)
    if len(first) == 0:
        return like.sum() * 0
    return like[:, first, second].mean()
