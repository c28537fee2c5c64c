"""TSDAE (Wang et al., Findings of EMNLP 2021): one vector must rebuild the whole document.

    L = cross-entropy of every token given the earlier ones and the vector of the noisy document

The decoder is causal and sees the noisy document only through its pooled vector; embeddings and
output matrix are the encoder's. The paper ties all weights of encoder and decoder and starts both
from BERT; here only embeddings are tied, and the decoder may be shallower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.objectives import masked_mean
from ssl_core.objectives.precision import full_precision
from ssl_core.views import View, ViewPolicy
from ssl_text.encoders.parts import SentenceDecoder
from ssl_text.telling import Told

Reps = tuple[Tensor, Tensor]


class TSDAE(Method):
    """An encoder and a decoder of `depth` layers; the `deletion` views.

    `tied=False` gives the decoder an output matrix of its own instead of the embeddings.
    """

    batch_coupled = False

    def __init__(
        self, encoder: nn.Module, views: ViewPolicy, *, depth: int = 1, tied: bool = True
    ) -> None:
        super().__init__(encoder, views)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.decoder = SentenceDecoder(encoder, depth=depth, tied=tied)  # type: ignore[arg-type]

    def _logits(self, views: Sequence[View]) -> Tensor:
        """Scores `[B, L, V]` of the piece that follows each, of the vector of the first view."""
        (features,) = self.features(views[:1])
        ids, valid = views[1].data.ids, views[1].data.valid
        with dropout_keys(views[1].rng):
            embedded = self.encoder.embed_ids(ids)  # type: ignore[operator]
            logits: Tensor = self.decoder(embedded, valid, features.pooled)
        return logits

    def encode(self, views: Sequence[View]) -> Reps:
        ids, valid = views[1].data.ids, views[1].data.valid
        logits = self._logits(views)
        following = valid[:, 1:]
        return _costs(logits[:, :-1], ids[:, 1:]), following

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """The likeliest piece after the true ones before it, everywhere; right ones marked."""
        ids, valid = views[1].data.ids, views[1].data.valid
        guesses = torch.cat([ids[:, :1], self._logits(views)[:, :-1].argmax(-1)], dim=1)
        right = (guesses == ids) & valid
        return {"rebuilt": Told(guesses, valid, guesses, right)}

    def loss(self, reps: Reps) -> Loss:
        costs, valid = reps
        return Loss.of({"tsdae": masked_mean(costs, valid)})


@full_precision
def _costs(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of each token, `[B, L, V]`, `[B, L]` -> `[B, L]`."""
    return F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
