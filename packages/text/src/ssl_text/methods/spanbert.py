"""SpanBERT (Joshi et al., TACL 2020): hidden spans, told also from what stands at their borders.

    L = CE(token | its state) + boundary * CE(token | states left and right of its span, its place)

Spans of whole words are hidden as in `WordSpans` (geometric lengths, 80/10/10 for a whole span).
The boundary head is a two-layer MLP (GELU, layer norm after each) of the two outer states and an
embedding of the place in the span; its output matrix is the pieces' embedding. As published there
is no next-sentence loss. Spans that touch count as one here, so that a border is never hidden
itself, and its states come from tokens that are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import Mask
from ssl_core.objectives.masked import masked_token_cross_entropy
from ssl_core.views import View, ViewPolicy
from ssl_text.methods.mlm import MLM

Reps = tuple[Tensor, Tensor, Tensor, Mask]


class SpanBERT(Method):
    """A text encoder, BERT's head and the boundary head; needs `data.options.words`."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.15,
        boundary: float = 1.0,
        places: int = 200,
        tied: bool = True,
    ) -> None:
        super().__init__(encoder, views)
        self.language = MLM(encoder, views, mask_ratio=mask_ratio, unit="span", tied=tied)
        self.head = BoundaryHead(encoder.vocabulary, places=places)  # type: ignore[arg-type]
        self.boundary = boundary

    def encode(self, views: Sequence[View]) -> Reps:
        view = views[0]
        tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        mask = self.language.mask(view.rng, tokens)
        assert self.language.corrupt is not None, "BERT swaps some words"
        shown = self.language.corrupt(tokens, mask, view.rng)
        with dropout_keys(view.rng):
            features = self.encoder.encode(shown, mask)  # type: ignore[operator]
        self.monitored = features.pooled.detach()
        words = self.language.decoder(features, mask, shown)
        matrix = self.language.decoder.matrix  # type: ignore[union-attr]
        return words, self.head(features, mask, matrix), tokens.values, mask

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """What the masked language model sees and guesses."""
        return self.language.shown(views)

    def loss(self, reps: Reps) -> Loss:
        words, borders, ids, mask = reps
        return Loss.of(
            {
                "mlm": masked_token_cross_entropy(words, ids, mask),
                "boundary": self.boundary * masked_token_cross_entropy(borders, ids, mask),
            }
        )


class BoundaryHead(nn.Module):
    """States at the borders of each hidden token's span to logits over pieces, `[M, V]`.

    Places in a span from `places` on share one embedding. The output matrix, `[V, D]`, is given.
    """

    def __init__(self, embedding: nn.Embedding, *, places: int = 200) -> None:
        super().__init__()
        if places < 1:
            raise ValueError(f"places must be at least 1, got {places}")
        dim = embedding.embedding_dim
        self.place = nn.Embedding(places, dim)
        self.layers = nn.Sequential(
            *(nn.Linear(3 * dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=1e-12)),
            *(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=1e-12)),
        )
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))

    def forward(self, features: Features, mask: Mask, matrix: Tensor) -> Tensor:
        assert features.tokens is not None, "text encoders give a state a token"
        left, right = borders(mask.hidden)
        rows, where = mask.hidden.nonzero(as_tuple=True)
        first, last = left[rows, where], right[rows, where]
        place = self.place((where - first - 1).clamp(max=self.place.num_embeddings - 1))
        around = [features.tokens[rows, first], features.tokens[rows, last], place]
        states = self.layers(torch.cat(around, dim=-1))
        return nn.functional.linear(states, matrix, self.bias)


def borders(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest shown places before and after each place, int64 `[B, L]`, of bool `[B, L]`.

    Documents begin and end with a piece that is never hidden, so that both exist at hidden places.
    """
    length = hidden.shape[1]
    place = torch.arange(length, device=hidden.device).expand_as(hidden)
    left = place.masked_fill(hidden, -1).cummax(1).values
    right = place.masked_fill(hidden, length).flip(1).cummin(1).values.flip(1)
    return left, right
