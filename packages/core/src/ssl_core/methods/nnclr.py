"""NNCLR (Dwibedi et al., ICCV 2021): the positive is the nearest neighbour among earlier samples.

    L = [nce(NN(z_1), p_2) + nce(NN(z_2), p_1)] / 2,   p = predictor(z),  NN from a queue of z

The neighbour is the anchor and the batch's predictions are the candidates. The first view's
projections enter the queue after the loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.queue import Queue
from ssl_core.objectives import nearest, nnclr
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class NNCLR(Method):
    """Encoder, projector, predictor and a support queue; no teacher."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 2048,
        dim: int = 256,
        layers: int = 3,
        predictor_hidden: int = 4096,
        queue: int = 98304,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers, last_norm=True)
        self.predictor = MLPHead(dim, dim, hidden=predictor_hidden, layers=2)
        self.queue = Queue(queue, dim)
        self.temperature = temperature
        self._support = torch.zeros(0, dim)

    def encode(self, views: Sequence[View]) -> Reps:
        z = [self.projector(f.pooled) for f in self.features(views, joint=False)]
        return z, [self.predictor(projected) for projected in z]

    def loss(self, reps: Reps) -> Loss:
        (z_1, z_2), (p_1, p_2) = reps
        self._support = z_1.detach()
        near_1, near_2 = (nearest(z.detach(), self.queue.rows) for z in (z_1, z_2))
        return Loss.of({"nnclr": nnclr(p_1, p_2, near_1, near_2, temperature=self.temperature)})

    def after_step(self, step: Step) -> None:
        self.queue.push(self._support, finite=step.finite)
