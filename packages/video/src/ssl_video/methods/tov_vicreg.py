"""TOV-VICReg (2022): VICReg on two views of a moment, and whether three moments stand in order.

    L = VICReg(z, z') + weight BCE(w [f(x_a), f(x_b), f(x_c)], shuffled)

The three are the moment, the one before and the one after, in one of six orders drawn evenly; only
the first order given (now, before, after) counts as whole, so a constant at the right prior costs
H(1/6) = 0.4506. The order head reads the backbone's features. Weights are the released run's (10,
10, 10; 0.1); the parser's defaults are 25, 25, 1; 1. Views come from the policy `triplet`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import vicreg_parts
from ssl_core.objectives.pretext import accuracy, pretext_cross_entropy
from ssl_core.views import View, ViewPolicy
from ssl_video.methods.heads import orders

Reps = tuple[list[Tensor], Tensor, Tensor]


class TOVVICReg(Method):
    """Encoder, expander and one linear layer over three features."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 1024,
        dim: int = 1024,
        invariance: float = 10.0,
        variance: float = 10.0,
        covariance: float = 10.0,
        weight: float = 0.1,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=3, last_bias=False)
        self.order_head = nn.Linear(3 * width, 1)
        self.register_buffer("orders", orders(3), persistent=False)
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        self.weight = weight

    orders: Tensor

    def encode(self, views: Sequence[View]) -> Reps:
        strong = [view for view in views if view.role != "order"]
        moments = [view for view in views if view.role == "order"]
        if (len(strong), len(moments)) != (2, 3):
            raise ValueError("tov_vicreg: needs the view policy `triplet`")
        projected = [self.projector(f.pooled) for f in self.features(strong, joint=False)]
        seen = torch.stack([f.pooled for f in self.features(moments)], dim=1)  # [B, 3, D]
        label = moments[0].rng.integers("clip order", high=len(self.orders))
        place = self.orders[label].unsqueeze(2).expand_as(seen)
        logit = self.order_head(seen.gather(1, place).flatten(1))[:, 0]
        # Two logits, the first fixed at 0: binary cross-entropy.
        return projected, torch.stack([torch.zeros_like(logit), logit], dim=1), (label > 0).long()

    def loss(self, reps: Reps) -> Loss:
        (z, z_prime), logits, shuffled = reps
        parts = vicreg_parts(z, z_prime, **self.weights)
        parts["order"] = self.weight * pretext_cross_entropy(logits, shuffled)
        return Loss.of(parts, {"accuracy": accuracy(logits, shuffled)})
