"""Jigsaw puzzles (Noroozi & Favaro, ECCV 2016): in which order were the tiles shuffled?

    L = -log softmax(g([f(tile_p(1)), ..., f(tile_p(n))]))_p

p is one of `permutations` orders chosen far apart. Tiles go through the encoder one by one and
their features are shuffled afterwards, which is the same and lets one pass serve `draws`
shuffles. Hide colour in the views (grey 0.66): it gives neighbours away.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.pretext import Answers, PretextClassifier, TileHead, tile_count, tile_features
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.tiles import permutation_set
from ssl_core.views import View, ViewPolicy


class Jigsaw(PretextClassifier):
    """`cells` tiles along each of `axes` axes, each covering `share` of its cell's side."""

    orders: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        cells: int = 3,
        axes: int = 2,
        share: float = 0.75,
        permutations: int = 100,
        draws: int = 1,
        dim: int = 1000,
        hidden: int = 4096,
    ) -> None:
        super().__init__(encoder, views)
        count = tile_count(cells, axes)
        self.cells, self.share, self.draws = cells, share, draws
        self.tile_head = TileHead(encoder.embed_dim, dim)  # type: ignore[arg-type]
        self.head = MLPHead(count * dim, permutations, hidden=hidden, layers=2)
        self.register_buffer("orders", permutation_set(count, permutations))

    def encode(self, views: Sequence[View]) -> Answers:
        return [self._answer(view) for view in views]

    def _answer(self, view: View) -> tuple[Tensor, Tensor]:
        tiles = tile_features(self, self.tile_head, view, self.cells, self.share)  # [B, n, dim]
        labels = view.rng.integers("order", self.draws, high=len(self.orders))  # [B, draws]
        rows = torch.arange(len(view), device=tiles.device)[:, None, None]
        shuffled = tiles[rows, self.orders[labels]]  # [B, draws, n, dim]
        logits = self.head(shuffled.flatten(2).flatten(0, 1))
        return logits.unflatten(0, labels.shape), labels
