"""PIRL (Misra & van der Maaten, CVPR 2020): an image and its shuffled tiles share one memory.

    L = w NCE(g(tiles), m) + (1 - w) NCE(f(image), m),   m the sample's row of a memory bank

Negatives are rows drawn from the bank, the same for a whole batch where the released code draws
for each sample. After the step m moves towards f(image), never towards the tiles. "nce" is the
paper's and the release's default loss, a binary question about each row, with the normaliser Z
of the first batch's tiles; "softmax" asks which of the rows it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.batch import Batch
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.methods.pretext import pooled_variants, tile_count
from ssl_core.networks.bank import Bank
from ssl_core.networks.masks import rows_at
from ssl_core.networks.tiles import cut_tiles
from ssl_core.objectives import memory_log_norm, memory_nce, moco
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy


@dataclass
class Reps:
    """Embeddings `[B, dim]` of image and tiles, and the samples' rows `[B]`."""

    image: Tensor
    tiles: Tensor
    index: Tensor


class PIRL(Method):
    """Encoder, a head for images and one for tiles, memory bank.

    The first view is the image, the last one (which may be the same) is cut into `cells` tiles
    along each of `axes` axes. `bank` must hold every training sample.
    """

    log_norm: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        bank: int,
        dim: int = 128,
        cells: int = 3,
        axes: int = 2,
        share: float = 0.75,
        negatives: int = 32000,
        temperature: float = 0.07,
        bank_momentum: float = 0.5,
        weight: float = 0.5,
        form: Literal["nce", "softmax"] = "nce",
    ) -> None:
        super().__init__(encoder, views)
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must lie in [0, 1], got {weight}")
        if form not in ("nce", "softmax"):
            raise ValueError(f"form must be 'nce' or 'softmax', got {form!r}")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        count = tile_count(cells, axes)
        self.image_head = nn.Linear(width, dim)
        self.tile_head = nn.Linear(width, dim)
        self.order_head = nn.Linear(count * dim, dim)
        self.bank = Bank(bank, dim, momentum=bank_momentum)
        self.register_buffer("log_norm", torch.tensor(torch.inf))  # until the first step is taken
        self.cells, self.share, self.form = cells, share, form
        self.negatives, self.temperature, self.weight = negatives, temperature, weight
        self._seen = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dim))
        self._norm: Tensor = self.log_norm

    def views(self, batch: Batch, rng: Rng) -> list[View]:
        """The views, carrying their samples' rows in the data."""
        return [
            replace(view, params={**view.params, "row": batch.index})
            for view in super().views(batch, rng)
        ]

    def encode(self, views: Sequence[View]) -> Reps:
        image, cut = views[0], views[-1]
        tiles = cut_tiles(cut.data, self.cells, cut.rng, share=self.share, standardise=False)
        shown = self.tile_head(pooled_variants(self, tiles, cut.rng))  # [B, n, dim]
        order = cut.rng.permutation("order", tiles.shape[1])
        shuffled = rows_at(shown, order)
        (features,) = self.features([image])
        return Reps(
            self.image_head(features.pooled),
            self.order_head(shuffled.flatten(1)),
            image.params["row"],
        )

    def loss(self, reps: Reps) -> Loss:
        self._seen = reps.index, reps.image
        own = self.bank.of(reps.index)
        far = self.bank.drawn(self.progress[0], self.negatives)
        size, T = self.bank.rows.shape[0], self.temperature
        if self.form == "softmax":
            tiles, image = (moco(z, own, far, temperature=T) for z in (reps.tiles, reps.image))
        else:
            now = memory_log_norm(reps.tiles, own, far, size=size, temperature=T)
            self._norm = torch.where(self.log_norm.isinf(), now, self.log_norm)
            tiles, image = (
                memory_nce(z, own, far, self._norm, size=size, temperature=T)
                for z in (reps.tiles, reps.image)
            )
        return Loss.of({"tiles": self.weight * tiles, "image": (1 - self.weight) * image})

    def after_step(self, step: Step) -> None:
        index, image = self._seen
        self.bank.update(index, image, finite=step.finite)
        self.log_norm.copy_(torch.where(step.finite, self._norm, self.log_norm))
