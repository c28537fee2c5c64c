"""SimSiam (Chen & He, CVPR 2021): predict the other view's projection, without a teacher.

    L = -(cos(p_1, sg z_2) + cos(p_2, sg z_1)) / 2

The stopped gradient alone keeps it from collapsing. The released code keeps the predictor's
learning rate constant while the others decay; here all follow the schedule.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import negative_cosine
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class SimSiam(Method):
    """Encoder, projector and a narrow predictor."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 2048,
        dim: int = 2048,
        layers: int = 3,
        predictor_hidden: int = 512,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers, last_norm=True)
        self.predictor = MLPHead(dim, dim, hidden=predictor_hidden, layers=2)

    def encode(self, views: Sequence[View]) -> Reps:
        z = [self.projector(f.pooled) for f in self.features(views, joint=False)]
        return [self.predictor(projected) for projected in z], z

    def loss(self, reps: Reps) -> Loss:
        (p_1, p_2), (z_1, z_2) = reps
        loss = (negative_cosine(p_1, z_2) + negative_cosine(p_2, z_1)) / 2
        # 1 when the directions spread over all dimensions, 0 when collapsed.
        unit = F.normalize(z_1.detach().float(), dim=1)
        spread = unit.std(0, unbiased=False).mean() * unit.shape[1] ** 0.5
        return Loss.of({"simsiam": loss}, {"direction_std": spread})
