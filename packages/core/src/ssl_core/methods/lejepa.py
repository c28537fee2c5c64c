"""LeJEPA (Balestriero & LeCun 2025): predict the mean of the views; embeddings be Gaussian.

    L = (1 - lambd) mean_v |z_v - mean of the global views|^2 + lambd SIGReg(z)

SIGReg tests each of `directions` random projections for normality, drawn anew each step. There is
no teacher, predictor, stopped gradient or schedule; the loss itself shows a collapse.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import lejepa, sigreg
from ssl_core.rng import Rng, key_of
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], list[Tensor]]


class LeJEPA(Method):
    """Encoder and projector on global and local views."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 2048,
        dim: int = 64,
        layers: int = 3,
        lambd: float = 0.05,
        directions: int = 1024,
        knots: int = 17,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers)
        self.dim, self.lambd, self.directions, self.knots = dim, lambd, directions, knots

    def encode(self, views: Sequence[View]) -> Reps:
        """Projections of the global views, and of the local ones."""
        ordered = sorted(views, key=lambda view: view.role != "global")
        count = sum(view.role == "global" for view in ordered)
        z = [self.projector(f.pooled) for f in self.features(ordered)]
        return z[:count], z[count:]

    def loss(self, reps: Reps) -> Loss:
        globals_, locals_ = reps
        # The same directions on every replica: keyed by the step, not by its samples.
        key = torch.tensor([key_of("lejepa", self.progress[0])], device=globals_[0].device)
        normal = Rng(key).normal("directions", self.dim, self.directions)[0]
        z = [*globals_, *locals_]
        loss = lejepa(z, normal, global_views=len(globals_), lambd=self.lambd, knots=self.knots)
        with torch.no_grad():
            test = sigreg(torch.stack(z).detach(), normal, knots=self.knots)
        return Loss.of({"lejepa": loss}, {"sigreg": test})
