"""Order and geometry (Jiao et al., ISBI 2020; fetal ultrasound): two pretexts on one short clip.

    L = CE(order head, permutation) + weight |theta_hat - theta|^2

Frames skipped apart are shuffled, and their order named, forward and backward counting as one (a
probe is moved either way): m!/2 classes for m frames. The whole clip was turned, moved, scaled and
sheared by one affine map, whose parameters, normalised to -1..1, are regressed. Views come from the
policy `geometry`. The regression form, m = 4 and weight 1 are ours where the paper is silent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives.pretext import accuracy, pretext_cross_entropy
from ssl_core.objectives.regression import mse
from ssl_core.views import View, ViewPolicy
from ssl_video.methods.heads import PairwiseOrderHead, orders
from ssl_video.views.affine import PARAMETERS

Reps = tuple[Tensor, Tensor, Tensor, Tensor]


class Ultrasound(Method):
    """One encoder for all frames, an order head, and a head for the affine map."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        clips: int = 4,
        hidden: int = 256,
        dropout: float = 0.5,
        weight: float = 1.0,
    ) -> None:
        super().__init__(encoder, views)
        self.register_buffer("orders", orders(clips, undirected=True), persistent=False)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.order_head = PairwiseOrderHead(
            width, clips, len(self.orders), hidden=hidden, dropout=dropout
        )
        self.affine_head = MLPHead(width, len(PARAMETERS), hidden=hidden, norm="none")
        self.weight = weight

    orders: Tensor

    def encode(self, views: Sequence[View]) -> Reps:
        if len(views) != self.orders.shape[1] or "affine" not in views[0].params:
            raise ValueError(
                f"ultrasound: needs {self.orders.shape[1]} views of the policy `geometry`, "
                f"got {len(views)}"
            )
        clips = torch.stack([f.pooled for f in self.features(views)], dim=1)  # [B, m, D]
        rng = views[0].rng
        label = rng.integers("clip order", high=len(self.orders))
        place = self.orders[label].unsqueeze(2).expand_as(clips)
        with dropout_keys(rng):
            logits = self.order_head(clips.gather(1, place))
        return logits, label, self.affine_head(clips.mean(1)), views[0].params["affine"]

    def loss(self, reps: Reps) -> Loss:
        logits, label, predicted, affine = reps
        return Loss.of(
            {
                "order": pretext_cross_entropy(logits, label),
                "affine": self.weight * mse(predicted, affine),
            },
            {"accuracy": accuracy(logits, label)},
        )
