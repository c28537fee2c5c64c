"""Barlow Twins (Zbontar et al., ICML 2021): make the cross-correlation of two views the identity.

    L = sum_i (C_ii - 1)^2 + lambda sum_{i != j} C_ij^2,   C = Z_A^T Z_B / B, Z standardised

Statistics are those of the global batch; the released code standardises per process unless its
batch norm is synchronised.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import barlow_twins
from ssl_core.views import View, ViewPolicy


class BarlowTwins(Method):
    """Encoder and a wide projector; no teacher, predictor or stop-gradient."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 8192,
        dim: int = 8192,
        layers: int = 3,
        lambd: float = 0.0051,
        scale: float = 1.0,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers, last_bias=False)
        self.lambd = lambd
        self.scale = scale

    def encode(self, views: Sequence[View]) -> list[Tensor]:
        return [self.projector(f.pooled) for f in self.features(views, joint=False)]

    def loss(self, reps: list[Tensor]) -> Loss:
        z_a, z_b = reps
        loss = barlow_twins(z_a, z_b, lambd=self.lambd, scale=self.scale)
        return Loss.of({"barlow_twins": loss})
