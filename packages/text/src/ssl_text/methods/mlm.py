"""BERT's masked language model (Devlin et al., NAACL 2019): predict hidden tokens.

15 % of the tokens are chosen; of these 80 % are shown as [MASK], 10 % as a uniformly random piece
(which may be the right one, or a special one) and 10 % as they are. The loss is the cross-entropy
of the chosen ones. The decoder is BERT's: a dense layer, GELU, layer norm, then the pieces'
embedding itself as output matrix with a bias of its own.

From the released code: the budget is round(15 % of the length, [CLS] and [SEP] included). Unlike
there, masks are new at every step (RoBERTa, Liu et al. 2019), there is no next-sentence loss, and
the words are pieces (no whole-word masking).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.methods.masked import MaskedModel
from ssl_core.networks.masks import Mask
from ssl_core.objectives import masked_token_cross_entropy
from ssl_core.rng import Rng
from ssl_core.views import ViewPolicy

_SPECIALS = 2
"""[CLS] and [SEP], which count towards the budget though they are never chosen."""


@dataclass(frozen=True)
class BertMasker:
    """Chooses tokens uniformly, and which of them are replaced by [MASK].

    `ratio` is the share chosen, at least one token a document; `most` caps their number
    (`max_predictions_per_seq`). `masked` is the share of the chosen shown as [MASK].
    """

    ratio: float = 0.15
    masked: float = 0.8
    most: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1 or not 0 <= self.masked <= 1:
            raise ValueError(f"need 0 < ratio < 1 and 0 <= masked <= 1, got {self}")

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask:
        assert maskable is not None, "text encoders say which tokens may be hidden"
        own = maskable.sum(1)
        budget = ((own + _SPECIALS) * self.ratio).round().clamp(min=1, max=self.most)
        noise = rng.uniform("mask", count).masked_fill(~maskable, 2.0)
        place = noise.argsort(dim=1, stable=True).argsort(dim=1)
        hidden = (place < torch.minimum(budget, own)[:, None]) & maskable
        return Mask(hidden, "replace", grid, replaced=hidden & (_fate(rng, count) < self.masked))


@dataclass(frozen=True)
class RandomPieces:
    """Swaps chosen tokens that keep a face by a random piece, with probability `share`.

    `share` is of all chosen tokens and must not exceed `1 - masked` of the masker.
    """

    vocab_size: int
    masked: float = 0.8
    share: float = 0.1

    def __call__(self, tokens: Tokens, mask: Mask, rng: Rng) -> Tokens:
        """Tokens with new values; the given ones stay as they are, for they are the target."""
        ids = tokens.values
        fate = _fate(rng, ids.shape[1])
        swapped = mask.hidden & (fate >= self.masked) & (fate < self.masked + self.share)
        pieces = rng.integers("random piece", ids.shape[1], high=self.vocab_size)
        return replace(tokens, values=torch.where(swapped, pieces, ids))


def _fate(rng: Rng, count: int) -> Tensor:
    """One number a token that decides between [MASK], random and kept; uniform `[B, count]`."""
    return rng.uniform("fate", count)


class TiedHead(nn.Module):
    """States of hidden tokens to logits over pieces, `[M, V]`: the matrix is the embedding's.

    The embedding stays the encoder's: it is not registered here a second time.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        dim = embedding.embedding_dim
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=1e-12))
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))
        self._embedding = (embedding,)

    def forward(self, features: Features, mask: Mask, tokens: Tokens) -> Tensor:
        assert features.tokens is not None, "checked by MaskedModel"
        states = self.transform(features.tokens[mask.hidden])  # [M, D]: logits cost most, so
        return nn.functional.linear(states, self._embedding[0].weight, self.bias)  # only here


def _ids(tokens: Tokens, mask: Mask) -> Tensor:
    """The target: what the tokens are."""
    return tokens.values


class MLM(MaskedModel):
    """Masked language model; `random` and `kept` are BERT's 10 % and 10 % of the chosen."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.15,
        random: float = 0.1,
        kept: float = 0.1,
        max_predictions: int | None = None,
    ) -> None:
        vocabulary = getattr(encoder, "vocabulary", None)
        if not isinstance(vocabulary, nn.Embedding):
            raise ValueError(f"mlm needs a text encoder, got {type(encoder).__name__}")
        if min(random, kept) < 0 or random + kept > 1:
            raise ValueError(f"random + kept must lie in [0, 1], got {random} + {kept}")
        masked = 1 - random - kept
        super().__init__(
            encoder,
            views,
            masker=BertMasker(mask_ratio, masked, max_predictions),
            decoder=TiedHead(vocabulary),
            target=_ids,
            corrupt=RandomPieces(vocabulary.num_embeddings, masked, random),
            reconstruction=masked_token_cross_entropy,
        )
