"""Any encoder of the transformers library as a token encoder, with dropout keyed by sample."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.networks.dropout import dropout_keys, key_dropout
from ssl_core.networks.masks import Mask
from ssl_core.rng import Rng
from ssl_text.encoders.attention import key_attention
from ssl_text.tokens import TokenBatch

Pooling = Literal["mean", "mean_all", "cls"]


class TextEncoder(nn.Module):
    """A transformers model with random weights behind the core's encoder contract.

    `pooled` is the mean over a document's own tokens (specials and padding left out), with
    "mean_all" over all but padding (sentence-transformers' mean), or the state at [CLS]. In masks
    of mode "replace" the embedding of [MASK] stands in for hidden tokens.
    """

    token_dim = 1

    def __init__(
        self,
        model: nn.Module,
        *,
        mask_id: int,
        special_ids: list[int],
        pad_id: int,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        if pooling not in ("mean", "mean_all", "cls"):
            raise ValueError(f'pooling must be "mean", "mean_all" or "cls", got {pooling!r}')
        self.model = model
        self.embed_dim: int = model.config.hidden_size
        self.mask_id = mask_id
        self.pad_id = pad_id
        self.pooling = pooling
        self.special_ids = tuple(special_ids)
        key_dropout(model)
        key_attention(model)

    @property
    def vocabulary(self) -> nn.Embedding:
        """The embedding of the pieces, `[V, D]`, which a decoder may share."""
        embedding: nn.Embedding = self.model.get_input_embeddings()
        return embedding

    def tokenize(self, data: TokenBatch) -> Tokens:
        """Ids `[B, L]` as they are; only real, non-special tokens may be hidden."""
        maskable = data.valid
        for special in self.special_ids:
            maskable = maskable & (data.ids != special)
        grid = (data.ids.shape[1],)
        starts = data.starts
        return Tokens(data.ids, grid, valid=data.valid, maskable=maskable, context=starts)

    def embed_ids(self, ids: Tensor) -> Tensor:
        """The pieces' embeddings `[B, L, D]`, which `encode_embedded` takes (perturbed, mixed)."""
        out: Tensor = self.vocabulary(ids)
        return out

    def encode_embedded(self, embedded: Tensor, tokens: Tokens) -> Features:
        """As `encode`, from embeddings `[B, L, D]` in place of the ids of `tokens`."""
        states = self.model(inputs_embeds=embedded, attention_mask=tokens.valid).last_hidden_state
        return Features(self._pool(states, tokens), states, tokens.grid, tokens.valid)

    def encode(self, tokens: Tokens, mask: Mask | None = None) -> Features:
        """States of all tokens `[B, L, D]` and one vector a document `[B, D]`."""
        ids = tokens.values
        if mask is not None:
            if mask.mode != "replace":
                raise ValueError(f'text is masked in mode "replace", got {mask.mode!r}')
            ids = ids.masked_fill(mask.at_mask_token, self.mask_id)
        states = self.model(input_ids=ids, attention_mask=tokens.valid).last_hidden_state
        return Features(self._pool(states, tokens), states, tokens.grid, tokens.valid)

    def forward(self, data: TokenBatch) -> Features:
        return self.encode(self.tokenize(data))

    def _pool(self, states: Tensor, tokens: Tokens) -> Tensor:
        if self.pooling == "cls":
            return states[:, 0]
        counted = tokens.valid if self.pooling == "mean_all" else tokens.maskable
        assert counted is not None, "made by tokenize"
        weight = counted.to(states.dtype)
        weight = weight / weight.sum(1, keepdim=True).clamp_(min=1)
        return torch.einsum("bl,bld->bd", weight, states)


def check_keyed(encoder: TextEncoder, *, length: int, name: str) -> None:
    """Raises `UserError` when a training forward draws from torch's global generator.

    Such a model could neither be resumed exactly nor see the same noise on any number of devices.
    """
    ids = torch.full((2, length), encoder.mask_id)
    ids[:, 0] = encoder.special_ids[0]
    data = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool), encoder.pad_id)
    before = torch.get_rng_state()
    was_training = encoder.training
    encoder.train()
    try:
        with torch.no_grad(), dropout_keys(Rng.at(0, 0, torch.arange(2))):
            states = encoder(data).tokens
    except Exception as error:
        raise UserError(f"encoder: {name} cannot encode token ids: {error}") from error
    finally:
        encoder.train(was_training)
        after = torch.get_rng_state()
        torch.set_rng_state(before)
    if states.shape != (2, length, encoder.embed_dim):
        raise UserError(f"encoder: {name} returns {tuple(states.shape)}, not one state a token")
    if not torch.equal(before, after):
        raise UserError(
            f"encoder: {name} draws from torch's global generator; "
            "set its dropout options to 0, or choose another model"
        )
