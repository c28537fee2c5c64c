"""CCA-SSG (Zhang et al., NeurIPS 2021): views agree dimension by dimension, dimensions differ.

    L = -tr(Z0' Z1) / N + lambda (||I - Z0' Z0 / N||^2 + ||I - Z1' Z1 / N||^2)

Z are the encoder's own outputs, standardised over the batch: no projector, no negatives.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.objectives.correlation import cca_ssg
from ssl_core.views import View, ViewPolicy


class CCASSG(Method):
    """An encoder and two views by edge drop and feature-column masks."""

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, lambd: float = 1e-3) -> None:
        super().__init__(encoder, views)
        self.lambd = lambd

    def encode(self, views: Sequence[View]) -> list[Tensor]:
        return [features.pooled for features in self.features(views, joint=False)]

    def loss(self, reps: list[Tensor]) -> Loss:
        loss = cca_ssg(reps[0], reps[1], lambd=self.lambd)
        return Loss.of({"cca_ssg": loss})
