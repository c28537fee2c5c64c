"""TSDAE (Wang et al., Findings of EMNLP 2021): one vector must rebuild the whole document.

    L = cross-entropy of every token given the earlier ones and the vector of the noisy document

The decoder is causal and sees the noisy document only through its pooled vector; embeddings and
output matrix are the encoder's. The paper ties all weights of encoder and decoder and starts both
from BERT; here only embeddings are tied, and the decoder may be shallower.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.objectives import masked_mean
from ssl_core.objectives.precision import full_precision
from ssl_core.views import View, ViewPolicy
from ssl_text.encoders.parts import SentenceDecoder

Reps = tuple[Tensor, Tensor]


class TSDAE(Method):
    """An encoder and a decoder of `depth` layers; the `deletion` views."""

    batch_coupled = False

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, depth: int = 1) -> None:
        super().__init__(encoder, views)
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.decoder = SentenceDecoder(encoder, depth=depth)  # type: ignore[arg-type]

    def encode(self, views: Sequence[View]) -> Reps:
        (features,) = self.features(views[:1])
        ids, valid = views[1].data.ids, views[1].data.valid
        matrix = self.encoder.vocabulary.weight  # type: ignore[union-attr]
        with dropout_keys(views[1].rng):
            embedded = self.encoder.embed_ids(ids)  # type: ignore[operator]
            logits = self.decoder(embedded, valid, features.pooled, matrix)
        following = valid[:, 1:]
        return _costs(logits[:, :-1], ids[:, 1:]), following

    def loss(self, reps: Reps) -> Loss:
        costs, valid = reps
        return Loss.of({"tsdae": masked_mean(costs, valid)})


@full_precision
def _costs(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of each token, `[B, L, V]`, `[B, L]` -> `[B, L]`."""
    return F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
