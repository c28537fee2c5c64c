"""MoCo v2 (Chen et al. 2020; MoCo: He et al., CVPR 2020): a queue of a slow encoder's keys.

    L = -log exp(q.k+ / T) / (exp(q.k+ / T) + sum_{k in queue} exp(q.k / T))

The first view gives the query, the second the key; `symmetric` adds the other direction
("v2+"). Keys enter the queue after the loss. The key encoder moves after the optimiser's step,
where the released code moves it before the next forward: the same order of operations. Batch
norm is over the batch of all replicas and is not shuffled: a query and its own key share the
statistics of their batch, which keys of the queue do not. That tells them apart in small batches,
and little in large ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.queue import Queue
from ssl_core.networks.teacher import Teacher
from ssl_core.objectives import moco
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class MoCo(Method):
    """Query encoder, momentum key encoder, queue."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 2048,
        dim: int = 128,
        layers: int = 2,
        queue: int = 65536,
        temperature: float = 0.2,
        momentum: float = 0.999,
        symmetric: bool = False,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers, norm="none")
        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        self.queue = Queue(queue, dim)
        self.temperature = temperature
        self.momentum = momentum
        self.symmetric = symmetric
        self._keys: list[Tensor] = []

    def encode(self, views: Sequence[View]) -> Reps:
        first, second = views
        asked, known = ([first, second], [second, first]) if self.symmetric else ([first], [second])
        queries = [self.projector(f.pooled) for f in self.features(asked, joint=False)]
        with torch.no_grad():
            taught = self.features(known, self.teacher.encoder, joint=False)
            keys = [self.teacher.projector(f.pooled) for f in taught]
        return queries, keys

    def loss(self, reps: Reps) -> Loss:
        queries, keys = reps
        self._keys = keys
        losses = [
            moco(q, k, self.queue.rows, temperature=self.temperature)
            for q, k in zip(queries, keys, strict=True)
        ]
        return Loss.of({"moco": torch.stack(losses).mean()})

    def after_step(self, step: Step) -> None:
        self.queue.push(torch.cat(self._keys), finite=step.finite)
        self.teacher.update(self, self.momentum, step.finite)
