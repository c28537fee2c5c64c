"""SupCon (Khosla et al., NeurIPS 2020): all samples of a class are positives of each other.

    L = mean_i -1/|P(i)| sum_{p in P(i)} log exp(s_ip / T) / sum_{a != i} exp(s_ia / T)

With labels it is supervised; it is here as the reference that unsupervised methods are measured
against. A sample without a label (-1) is a class of its own. The released code multiplies by
T / 0.07, which is 1 at its default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import sup_con
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy

Reps = tuple[list[Tensor], Tensor]


class SupCon(Method):
    """Encoder and projector; needs labelled data."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 2048,
        dim: int = 128,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden)
        self.temperature = temperature

    def views(self, batch: Batch, rng: Rng) -> list[View]:
        """The views, carrying their classes."""
        if batch.label is None:
            raise UserError("sup_con learns from labels: give class folders or a label column")
        # Below -1, so that no two samples without a label share a class.
        alone = torch.where(batch.label < 0, -1 - batch.ids.abs() - 1, batch.label)
        return [
            replace(view, params={**view.params, "class": alone})
            for view in super().views(batch, rng)
        ]

    def encode(self, views: Sequence[View]) -> Reps:
        z = [self.projector(features.pooled) for features in self.features(views)]
        return z, views[0].params["class"]

    def loss(self, reps: Reps) -> Loss:
        z, labels = reps
        return Loss.of({"sup_con": sup_con(*z, labels=labels, temperature=self.temperature)})
