"""SwAV (Caron et al., NeurIPS 2020): predict one view's balanced cluster assignment from another.

    L = mean over (global view u, view v != u) of CE(Q_u, softmax(C z_v / T)),
    Q = Sinkhorn(C z / epsilon): samples of mass 1, prototypes sharing the batch evenly

Unit projections z, unit prototypes C, rescaled before every step. `queue` earlier projections of
each global view join the assignment after the share `queue_start` of the run, for batches smaller
than the prototypes need. The prototypes stand still for the share `freeze_prototypes`; SEER is
this with other numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import rank, world_size
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.queue import Queue
from ssl_core.objectives import Scores, sinkhorn, swav
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class SwAV(Method):
    """Multi-crop; encoder, projector and prototypes, without a teacher."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        prototypes: int = 3000,
        hidden: int = 2048,
        dim: int = 128,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue: int = 0,
        queue_start: float = 0.05,
        freeze_prototypes: float = 0.0,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, dim), dim=1))
        self.queues = nn.ModuleList([Queue(queue, dim) for _ in range(2)] if queue else [])
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.queue_start = queue_start
        self.freeze_prototypes = freeze_prototypes
        self._seen: list[Tensor] = []

    def before_step(self, step: int, total: int) -> None:
        super().before_step(step, total)
        with torch.no_grad():
            self.prototypes.copy_(F.normalize(self.prototypes, dim=1))

    def encode(self, views: Sequence[View]) -> Reps:
        """Unit projections of the global views, and of the local ones."""
        ordered = sorted(views, key=lambda view: view.role != "global")
        count = sum(view.role == "global" for view in ordered)
        z = [F.normalize(self.projector(f.pooled), dim=1) for f in self.features(ordered)]
        return z[:count], z[count:]

    def loss(self, reps: Reps) -> Loss:
        globals_, locals_ = reps
        self._seen = [z.detach() for z in globals_]
        codes = [self._assign(z, place) for place, z in enumerate(self._seen)]
        prototypes: Tensor = self.prototypes
        step, total = self.progress
        if step < self.freeze_prototypes * total:
            # A zero gradient rather than none: every replica still takes part in the reduction.
            prototypes = prototypes.detach() + 0 * prototypes
        scores = [Scores(z, prototypes) for z in (*globals_, *locals_)]
        used = (torch.cat(codes).sum(0) > 1e-2).float().mean()
        loss = swav(scores, codes, temperature=self.temperature)
        return Loss.of({"swav": loss}, {"prototypes_used": used})

    @torch.no_grad()
    def _assign(self, z: Tensor, place: int) -> Tensor:
        """Codes `[B, K]` of one global view's projections."""
        rows = z
        step, total = self.progress
        if place < len(self.queues) and step >= self.queue_start * total:
            # Each replica brings its share of the queue, so that all of it counts once.
            earlier: Tensor = self.queues[place].rows  # type: ignore[assignment]
            rows = torch.cat([z, earlier[rank() :: world_size()].to(z.dtype)])
        scores = rows @ self.prototypes.to(z.dtype).T
        codes = sinkhorn(scores, temperature=self.epsilon, iterations=self.iterations)
        return codes[: z.shape[0]]

    def after_step(self, step: Step) -> None:
        for queue, seen in zip(self.queues, self._seen, strict=False):
            queue.push(seen, finite=step.finite)  # type: ignore[operator]
