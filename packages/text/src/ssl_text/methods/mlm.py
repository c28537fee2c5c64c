"""BERT's masked language model (Devlin et al., NAACL 2019): predict hidden tokens.

15 % of the tokens are chosen; of these 80 % are shown as [MASK], 10 % as a uniformly random piece
(which may be the right one, or a special one) and 10 % as they are. The loss is the cross-entropy
of the chosen ones. The decoder is BERT's: a dense layer, GELU, layer norm, then the pieces'
embedding itself as output matrix with a bias of its own.

From the released code: the budget is round(15 % of the length, [CLS] and [SEP] included). Unlike
there, masks are new at every step (RoBERTa, Liu et al. 2019), there is no next-sentence loss, and
what is hidden are pieces; `unit="word"` hides whole words (BERT's later release), `unit="span"`
runs of words (SpanBERT, without its boundary objective). `static` masks are drawn once a document
in so many versions, as the released BERT data has them (10).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.methods.masked import MaskedModel, Prediction
from ssl_core.networks.masks import Mask
from ssl_core.objectives import masked_token_cross_entropy
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy
from ssl_text.encoders.parts import PiecesOutput
from ssl_text.methods.word_masks import (
    UnitMask,
    WholeWords,
    WordSpans,
    budget_of,
    word_numbers,
)
from ssl_text.telling import as_guessed

Unit = Literal["token", "word", "span"]


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
        budget = budget_of(maskable, self.ratio, self.most)
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
    low: int = 0
    """The first id that may be drawn; above the specials where those must not be."""

    def __call__(self, tokens: Tokens, mask: Mask, rng: Rng) -> Tokens:
        """Tokens with new values; the given ones stay as they are, for they are the target."""
        ids = tokens.values
        fate = _fate(rng, ids.shape[1], mask)
        swapped = mask.hidden & (fate >= self.masked) & (fate < self.masked + self.share)
        pieces = rng.integers("random piece", ids.shape[1], low=self.low, high=self.vocab_size)
        return replace(tokens, values=torch.where(swapped, pieces, ids))


def _fate(rng: Rng, count: int, mask: Mask | None = None) -> Tensor:
    """One number a token that decides between [MASK], random and kept; uniform `[B, count]`.

    Tokens of one unit of a `UnitMask` share theirs.
    """
    fate = rng.uniform("fate", count)
    unit = mask.unit if isinstance(mask, UnitMask) else None
    return fate if unit is None else fate.gather(1, unit)


class PiecesHead(PiecesOutput):
    """States of hidden tokens to logits over pieces, `[M, V]`."""

    def __init__(self, embedding: nn.Embedding, *, tied: bool = True) -> None:
        super().__init__(embedding, tied=tied)
        dim = embedding.embedding_dim
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=1e-12))

    def forward(self, features: Features, mask: Mask, tokens: Tokens) -> Tensor:
        assert features.tokens is not None, "checked by MaskedModel"
        # Logits cost most, so only at the hidden places.
        return self.logits(self.transform(features.tokens[mask.hidden]))


def _ids(tokens: Tokens, mask: Mask) -> Tensor:
    """The target: what the tokens are."""
    return tokens.values


class MLM(MaskedModel):
    """Masked language model; `random` and `kept` are BERT's 10 % and 10 % of the chosen.

    BERT's output matrix is its embedding; `tied=False` learns one of its own.
    `random_specials=False` draws random pieces from those that are no specials (TAPE's intent).
    Units "word" and "span" need a reader that keeps where words begin (`data.options.words`).
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.15,
        random: float = 0.1,
        kept: float = 0.1,
        max_predictions: int | None = None,
        unit: Unit = "token",
        static: int = 0,
        random_specials: bool = True,
        tied: bool = True,
    ) -> None:
        vocabulary = getattr(encoder, "vocabulary", None)
        if not isinstance(vocabulary, nn.Embedding):
            raise ValueError(f"mlm needs a text encoder, got {type(encoder).__name__}")
        if min(random, kept) < 0 or random + kept > 1:
            raise ValueError(f"random + kept must lie in [0, 1], got {random} + {kept}")
        if static < 0:
            raise ValueError(f"static must be 0 or the number of versions, got {static}")
        masked = 1 - random - kept
        low = 0 if random_specials else first_piece(encoder.special_ids)  # type: ignore[arg-type]
        super().__init__(
            encoder,
            views,
            masker=BertMasker(mask_ratio, masked, max_predictions),
            decoder=PiecesHead(vocabulary, tied=tied),
            target=_ids,
            corrupt=RandomPieces(vocabulary.num_embeddings, masked, random, low),
            reconstruction=masked_token_cross_entropy,
        )
        self.units = chooser(unit, mask_ratio, max_predictions)
        self.masked_share = masked
        self.static = static

    def mask(self, rng: Rng, tokens: Tokens) -> Mask:
        """Hides pieces, whole words or spans."""
        if self.units is None:
            return super().mask(rng, tokens)
        if tokens.context is None:
            raise UserError("method mlm: words and spans need data.options.words: true")
        assert tokens.maskable is not None, "text encoders say which tokens may be hidden"
        words = word_numbers(tokens.context, tokens.maskable)
        hidden, unit = self.units.choose(rng, words)
        made = UnitMask(hidden, "replace", tokens.grid, unit=unit)
        made.replaced = hidden & (_fate(rng, hidden.shape[1], made) < self.masked_share)
        return made

    def _predict(self, view: View, target: Tensor | None = None) -> Prediction:
        return super()._predict(self._keyed(view), target)

    def _keyed(self, view: View) -> View:
        """The view under the key of its masks."""
        if not self.static:
            return view
        version = view.rng.integers("version", high=self.static)
        return replace(view, rng=content_keys(view.data.ids, view.data.valid).fold(version))

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """Documents as the encoder sees them, and the likeliest pieces in hidden places."""
        view = self._keyed(views[0])
        rep = super()._predict(view)
        tokens: Tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        assert self.corrupt is not None, "BERT swaps some words"
        seen = self.corrupt(tokens, rep.mask, view.rng).values
        return {
            "hidden": self.encoder.told(tokens, rep.mask, seen),  # type: ignore[operator]
            "predicted": as_guessed(tokens, rep.mask, rep.predicted.argmax(-1)),
        }


def first_piece(special_ids: Sequence[int]) -> int:
    """The id after the specials, which must come first."""
    if sorted(special_ids) != list(range(len(special_ids))):
        raise ValueError(f"random_specials=False needs the specials first, they are {special_ids}")
    return len(special_ids)


def chooser(unit: Unit, ratio: float, most: int | None) -> WholeWords | WordSpans | None:
    """What chooses units larger than a token; None for tokens."""
    if unit == "token":
        return None
    if unit == "word":
        return WholeWords(ratio, most)
    if unit == "span":
        return WordSpans(ratio, most)
    raise ValueError(f"unit must be 'token', 'word' or 'span', got {unit!r}")


def content_keys(ids: Tensor, valid: Tensor) -> Rng:
    """One key a document, from its pieces alone: the same in any batch and at any step."""
    place = torch.arange(ids.shape[1], device=ids.device)
    own = Rng(torch.zeros_like(ids).flatten()).fold(place.expand_as(ids).flatten(), ids.flatten())
    return Rng((own.key.view_as(ids) * valid).sum(1)).fold("static mask")
