"""RSPNet (Chen et al., AAAI 2021): which of two clips runs at the anchor's speed, whoever moves.

    L_speed = max(0, margin - (q . k - q . k') / T)       k at the anchor's speed, k' at the other
    L_video = InfoNCE(q, k) + InfoNCE(q, k')              appearance agrees across speeds

with two heads on one encoder, cosines q . k, keys from a slow copy and a queue of them (MoCo),
T = 0.07, margin 2. Views come from the policy `speeds`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.queue import Queue
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import moco
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class RSPNet(Method):
    """Anchor from the student, the two other clips from the teacher; heads for speed and video."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 512,
        dim: int = 128,
        queue: int = 16384,
        temperature: float = 0.07,
        margin: float = 2.0,
        momentum: float = 0.999,
        weight: float = 1.0,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.speed = MLPHead(width, dim, hidden=hidden, norm="none")
        self.video = MLPHead(width, dim, hidden=hidden, norm="none")
        self.teacher = Teacher(encoder=encoder, speed=self.speed, video=self.video)
        self.queue = Queue(queue, dim)
        self.temperature = temperature
        self.margin = margin
        self.momentum = momentum
        self.weight = weight
        self._keys: Tensor | None = None

    def encode(self, views: Sequence[View]) -> Reps:
        if len(views) != 3 or "stride" not in views[0].params:
            raise ValueError("rspnet: needs the three views of the policy `speeds`")
        (anchor,) = self.features(views[:1])
        with torch.no_grad():
            keys = [f.pooled for f in self.features(views[1:], self.teacher.encoder)]
            others = [self.teacher.speed(x) for x in keys] + [self.teacher.video(x) for x in keys]
        return [self.speed(anchor.pooled), self.video(anchor.pooled)], others

    def loss(self, reps: Reps) -> Loss:
        (speed, video), (same, other, near, far) = reps
        gap = F.cosine_similarity(speed, same) - F.cosine_similarity(speed, other)
        ranking = F.relu(self.margin - gap / self.temperature).mean()
        self._keys = near
        appearance = sum(
            moco(video, key, self.queue.rows, temperature=self.temperature) for key in (near, far)
        )
        return Loss.of(
            {"speed": ranking, "video": self.weight * appearance},
            {"ranked": (gap > 0).float().mean()},
        )

    def after_step(self, step: Step) -> None:
        if self._keys is not None:
            self.queue.push(self._keys, finite=step.finite)
        self.teacher.update(self, self.momentum, step.finite)
