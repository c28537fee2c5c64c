"""W-MSE (Ermolov et al., ICML 2021): whitened embeddings of a sample's views should be equal.

    L = mean over pairs of views of 2 - 2 cos(W_1 z_1, W_2 z_2),   cov(W z) = I

Each view is whitened in random runs of `size` rows, `splits` times anew each step. A batch that
`size` does not divide is whitened as a whole; where it is smaller than the embedding, `eps`
shrinks the covariance so that it can be inverted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.distributed import world_size
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import w_mse
from ssl_core.rng import Rng, key_of
from ssl_core.views import View, ViewPolicy


class WMSE(Method):
    """Encoder and projector; no negatives, teacher or predictor."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 1024,
        dim: int = 64,
        size: int = 128,
        splits: int = 1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden)
        if splits < 1 or size < 2:
            raise ValueError(f"need splits >= 1 and size >= 2, got {splits} and {size}")
        self.size, self.splits, self.eps = size, splits, eps

    def encode(self, views: Sequence[View]) -> list[Tensor]:
        return [self.projector(f.pooled) for f in self.features(views)]

    def loss(self, reps: list[Tensor]) -> Loss:
        total = reps[0].shape[0] * world_size()
        size = self.size if total % self.size == 0 else total
        # The same permutations on every replica: keyed by the step, not by its samples.
        key = torch.tensor([key_of("w_mse", self.progress[0])], device=reps[0].device)
        order = Rng(key.expand(self.splits)).fold(torch.arange(self.splits, device=key.device))
        loss = w_mse(*reps, size=size, order=order.permutation("rows", total), eps=self.eps)
        return Loss.of({"w_mse": loss})
