"""VCOP (Xu et al., CVPR 2019): several clips of a video are shuffled; name their order.

    L = CE(head(f(x_pi(1)), ..., f(x_pi(n))), pi)

over the n! orders, chance log n!. Clips are encoded one by one, so their features are shuffled
instead of their pixels. Views come in true order from the policy `order`. With clips of one frame
and an image network this is OPN (Lee et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.objectives.pretext import accuracy, pretext_cross_entropy
from ssl_core.views import View, ViewPolicy
from ssl_video.methods.heads import PairwiseOrderHead, orders


class ClipOrder(Method):
    """Encoder and pairwise order head; `clips` is the policy's number of clips."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        clips: int = 3,
        hidden: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(encoder, views)
        self.register_buffer("orders", orders(clips), persistent=False)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.head = PairwiseOrderHead(
            width, clips, len(self.orders), hidden=hidden, dropout=dropout
        )

    orders: Tensor

    def encode(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        if len(views) != self.orders.shape[1]:
            raise ValueError(
                f"clip_order: {len(views)} views for clips={self.orders.shape[1]}; give the view "
                "policy `order` the same number of clips"
            )
        clips = torch.stack([f.pooled for f in self.features(views)], dim=1)  # [B, n, D]
        rng = views[0].rng
        label = rng.integers("clip order", high=len(self.orders))
        place = self.orders[label].unsqueeze(2).expand_as(clips)
        with dropout_keys(rng):
            return self.head(clips.gather(1, place)), label

    def loss(self, reps: tuple[Tensor, Tensor]) -> Loss:
        logits, label = reps
        return Loss.of(
            {"order": pretext_cross_entropy(logits, label)}, {"accuracy": accuracy(logits, label)}
        )
