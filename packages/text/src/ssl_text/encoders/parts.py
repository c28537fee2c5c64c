"""Smaller transformers beside an encoder: ELECTRA's generator, TSDAE's decoder."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.networks.dropout import key_dropout
from ssl_text.encoders.attention import NAME, key_attention
from ssl_text.encoders.transformer import TextEncoder


def bert_config(encoder: nn.Module, method: str) -> Any:
    """A copy of the configuration of a BERT encoder; `UserError` for any other."""
    model = getattr(encoder, "model", None)
    config = getattr(model, "config", None)
    if not isinstance(encoder, TextEncoder) or getattr(config, "model_type", None) != "bert":
        raise UserError(f"encoder: {method} needs a BERT (bert_tiny to bert_base)")
    return copy.deepcopy(config)


class PiecesOutput(nn.Module):
    """States to logits over pieces: a matrix `[V, D]` and a bias of its own.

    The matrix is the embedding's, which stays the encoder's and is not registered here a second
    time; with `tied=False` it is one of its own, so that what pushes all rare pieces away at every
    step does not push their embeddings, too.
    """

    def __init__(self, embedding: nn.Embedding, *, tied: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))
        self.own = None if tied else nn.Parameter(embedding.weight.detach().clone())
        self._embedding = (embedding,)

    @property
    def matrix(self) -> Tensor:
        """The output matrix `[V, D]`."""
        return self._embedding[0].weight if self.own is None else self.own

    def logits(self, states: Tensor) -> Tensor:
        """Of states `[..., D]`, `[..., V]`."""
        return nn.functional.linear(states, self.matrix, self.bias)


class Generator(PiecesOutput):
    """A narrow BERT on the discriminator's own embeddings, mapped to its width (ELECTRA).

    Output logits use the same embedding matrix unless `tied=False`; the maps between the widths
    are its own.
    """

    def __init__(self, encoder: TextEncoder, *, share: float, tied: bool = True) -> None:
        super().__init__(encoder.vocabulary, tied=tied)
        import transformers

        config = bert_config(encoder, "electra")
        width = config.hidden_size
        heads = max(1, round(config.num_attention_heads * share))
        config.hidden_size = max(heads, round(width * share) // heads * heads)
        config.num_attention_heads = heads
        config.intermediate_size = max(1, round(config.intermediate_size * share))
        config._attn_implementation = NAME
        self.model = transformers.BertModel(config, add_pooling_layer=False)
        # Never used: the embeddings come from the discriminator.
        self.model.embeddings.word_embeddings = nn.Identity()
        self.inward = nn.Linear(width, config.hidden_size)
        self.outward = nn.Sequential(
            nn.Linear(config.hidden_size, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12)
        )
        key_dropout(self.model)
        key_attention(self.model)

    def forward(self, embedded: Tensor, valid: Tensor, hidden: Tensor) -> Tensor:
        """Logits `[M, V]` of the hidden places of embeddings `[B, L, D]`."""
        states = self.model(inputs_embeds=self.inward(embedded), attention_mask=valid)
        return self.logits(self.outward(states.last_hidden_state[hidden]))


class SentenceDecoder(PiecesOutput):
    """A causal BERT that sees a document only through one vector (TSDAE)."""

    def __init__(self, encoder: TextEncoder, *, depth: int, tied: bool = True) -> None:
        super().__init__(encoder.vocabulary, tied=tied)
        import transformers

        config = bert_config(encoder, "tsdae")
        config.num_hidden_layers = depth
        config.is_decoder = True
        config.add_cross_attention = True
        config.use_cache = False
        config._attn_implementation = NAME
        self.model = transformers.BertModel(config, add_pooling_layer=False)
        self.model.embeddings.word_embeddings = nn.Identity()  # the encoder's are used
        key_dropout(self.model)
        key_attention(self.model)

    def forward(self, embedded: Tensor, valid: Tensor, sentence: Tensor) -> Tensor:
        """Logits `[B, L, V]` of the token after each place, from `[B, L, D]` and `[B, D]`."""
        states = self.model(
            inputs_embeds=embedded,
            attention_mask=valid,
            encoder_hidden_states=sentence[:, None],
        ).last_hidden_state
        return self.logits(states)
