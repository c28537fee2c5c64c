"""What every text encoder shares: ids to tokens, the place of [MASK], one vector a document."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NotRequired, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.networks.masks import Mask
from ssl_text.telling import Told, as_hidden
from ssl_text.tokens import TokenBatch

Pooling = Literal["mean", "mean_all", "cls"]


class Pieces(TypedDict):
    """What an encoder has to know of the tokenizer, and how it pools."""

    mask_id: int
    special_ids: list[int]
    pad_id: int
    pooling: NotRequired[Pooling]


class IdEncoder(nn.Module, ABC):
    """An encoder of token ids; a subclass says how embeddings become states.

    `pooled` is the mean over a document's own tokens (specials and padding left out), with
    "mean_all" over all but padding (sentence-transformers' mean), or the state at [CLS]. In masks
    of mode "replace" the embedding of [MASK] stands in for hidden tokens.
    """

    token_dim = 1
    embed_dim: int

    def __init__(self, **pieces: Unpack[Pieces]) -> None:
        super().__init__()
        pooling = pieces.get("pooling", "mean")
        if pooling not in ("mean", "mean_all", "cls"):
            raise ValueError(f'pooling must be "mean", "mean_all" or "cls", got {pooling!r}')
        self.mask_id = pieces["mask_id"]
        self.pad_id = pieces["pad_id"]
        self.pooling = pooling
        self.special_ids = tuple(pieces["special_ids"])

    @property
    @abstractmethod
    def vocabulary(self) -> nn.Embedding:
        """The embedding of the pieces, `[V, D]`, which a decoder may share."""

    @abstractmethod
    def states(self, tokens: Tokens, *, ids: Tensor | None, embedded: Tensor | None) -> Tensor:
        """One state a token, `[B, L, D]`, of `ids` `[B, L]` or of their embeddings `[B, L, D]`.

        What stands on padding must change nothing else.
        """

    def tokenize(self, data: TokenBatch) -> Tokens:
        """Ids `[B, L]` as they are; only real, non-special tokens may be hidden."""
        maskable = data.valid
        for special in self.special_ids:
            maskable = maskable & (data.ids != special)
        grid = (data.ids.shape[1],)
        return Tokens(data.ids, grid, valid=data.valid, maskable=maskable, context=data.starts)

    def told(self, tokens: Tokens, mask: Mask, shown: Tensor) -> Told:
        """For the report: the tokens as the encoder sees ids `shown` `[B, L]` under a mask."""
        return as_hidden(tokens, mask, shown, self.mask_id)

    def embed_ids(self, ids: Tensor) -> Tensor:
        """The pieces' embeddings `[B, L, D]`, which `encode_embedded` takes (perturbed, mixed)."""
        out: Tensor = self.vocabulary(ids)
        return out

    def encode_embedded(self, embedded: Tensor, tokens: Tokens) -> Features:
        """As `encode`, from embeddings `[B, L, D]` in place of the ids of `tokens`."""
        return self._features(self.states(tokens, ids=None, embedded=embedded), tokens)

    def encode(self, tokens: Tokens, mask: Mask | None = None) -> Features:
        """States of all tokens `[B, L, D]` and one vector a document `[B, D]`."""
        ids = tokens.values
        if mask is not None:
            if mask.mode != "replace":
                raise ValueError(f'text is masked in mode "replace", got {mask.mode!r}')
            ids = ids.masked_fill(mask.at_mask_token, self.mask_id)
        return self._features(self.states(tokens, ids=ids, embedded=None), tokens)

    def forward(self, data: TokenBatch) -> Features:
        return self.encode(self.tokenize(data))

    def _features(self, states: Tensor, tokens: Tokens) -> Features:
        return Features(self._pool(states, tokens), states, tokens.grid, tokens.valid)

    def _pool(self, states: Tensor, tokens: Tokens) -> Tensor:
        if self.pooling == "cls":
            return states[:, 0]
        counted = tokens.valid if self.pooling == "mean_all" else tokens.maskable
        assert counted is not None, "made by tokenize"
        weight = counted.to(states.dtype)
        weight = weight / weight.sum(1, keepdim=True).clamp_(min=1)
        return torch.einsum("bl,bld->bd", weight, states)


class EmbeddingEncoder(IdEncoder):
    """An encoder with an embedding of its own, of width `dim`, which is also that of its states."""

    def __init__(self, vocab_size: int, *, dim: int, **pieces: Unpack[Pieces]) -> None:
        super().__init__(**pieces)
        self.embed_dim = dim
        self.embedding = nn.Embedding(vocab_size, dim)

    @property
    def vocabulary(self) -> nn.Embedding:
        return self.embedding

    def states(self, tokens: Tokens, *, ids: Tensor | None, embedded: Tensor | None) -> Tensor:
        assert tokens.valid is not None, "made by tokenize"
        start = self.embed_ids(ids) if embedded is None else embedded  # type: ignore[arg-type]
        return self.run(start, tokens.valid)

    @abstractmethod
    def run(self, states: Tensor, valid: Tensor) -> Tensor:
        """States `[B, L, D]` of embeddings `[B, L, D]`; `valid` is False on padding."""
