"""VICReg (Bardes et al., ICLR 2022): invariance, variance and covariance of two views.

    L = 25 MSE(z, z') + 25 (V(z) + V(z')) / 2 + 1 (C(z) + C(z'))
    V = mean_d relu(1 - sqrt(var_d + 1e-4)),   C = sum_{i != j} cov_ij^2 / D

Some ports add V(z) + V(z') without the half, so that their variance weight counts twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import vicreg_parts
from ssl_core.views import View, ViewPolicy


class VICReg(Method):
    """Encoder and expander; no negatives, teacher, predictor or stop-gradient."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 8192,
        dim: int = 8192,
        layers: int = 3,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers, last_bias=False)
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def encode(self, views: Sequence[View]) -> list[Tensor]:
        return [self.projector(f.pooled) for f in self.features(views, joint=False)]

    def loss(self, reps: list[Tensor]) -> Loss:
        z, z_prime = reps
        return Loss.of(vicreg_parts(z, z_prime, **self.weights))
