"""Context prediction (Doersch et al., ICCV 2015): where does this tile lie from the middle one?

    L = -(1/8) sum_j log softmax(g([f(middle), f(neighbour_j)]))_j

over the 8 neighbours of the middle of 3 x 3 tiles (26 in volumes, 2 on one axis). Tiles keep a
random distance, are standardised one by one, and colour is best hidden in the views: lenses shift
colours outwards, which gives places away.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.pretext import Answers, PretextClassifier, TileHead, tile_count, tile_features
from ssl_core.networks.heads import MLPHead
from ssl_core.views import View, ViewPolicy


class RelativePatch(PretextClassifier):
    """Three tiles along each of `axes` axes, each covering `share` of its cell's side."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        axes: int = 2,
        share: float = 0.75,
        dim: int = 1000,
        hidden: int = 4096,
    ) -> None:
        super().__init__(encoder, views)
        self.count, self.share = tile_count(3, axes), share
        self.tile_head = TileHead(encoder.embed_dim, dim)  # type: ignore[arg-type]
        self.head = MLPHead(2 * dim, self.count - 1, hidden=hidden, layers=2)

    def encode(self, views: Sequence[View]) -> Answers:
        return [self._answer(view) for view in views]

    def _answer(self, view: View) -> tuple[Tensor, Tensor]:
        tiles = tile_features(self, self.tile_head, view, 3, self.share)  # [B, n, dim]
        middle = self.count // 2
        others = torch.cat([tiles[:, :middle], tiles[:, middle + 1 :]], dim=1)
        pairs = torch.cat([tiles[:, middle : middle + 1].expand_as(others), others], dim=2)
        logits = self.head(pairs.flatten(0, 1)).unflatten(0, others.shape[:2])
        labels = torch.arange(self.count - 1, device=tiles.device).expand(len(view), -1)
        return logits, labels
