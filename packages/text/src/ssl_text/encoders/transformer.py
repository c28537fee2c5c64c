"""Any encoder of the transformers library as a token encoder, with dropout keyed by sample."""

from __future__ import annotations

import inspect
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.errors import UserError
from ssl_core.networks.dropout import dropout_keys, key_dropout
from ssl_core.networks.packing import Packing, packed
from ssl_core.rng import Rng
from ssl_text.encoders.attention import NAME as KEYED
from ssl_text.encoders.attention import key_attention
from ssl_text.encoders.base import IdEncoder, Pieces
from ssl_text.tokens import TokenBatch

PACK_BELOW = 0.9
"""Share of real tokens in a batch above which leaving out the padding does not pay."""


class TextEncoder(IdEncoder):
    """A transformers model with random weights behind the core's encoder contract.

    With `packed`, the tokens of a padded batch go through the model one after another, without
    their padding: positions start anew with each document, attention stays within it, and
    dropout draws the same numbers. States are the same up to rounding. None packs where the model
    can be packed, which is tried when it is built; True raises `UserError` where it cannot.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        packed: bool | None = None,
        **pieces: Unpack[Pieces],
    ) -> None:
        super().__init__(**pieces)
        self.model = model
        self.embed_dim: int = model.config.hidden_size
        key_dropout(model)
        key_attention(model)
        self.first_position = _first_position(model)
        stacks = (stack for stack in model.modules() if isinstance(stack, nn.ModuleList))
        self._blocks = tuple(block for stack in stacks for block in stack)
        self.packed = packed is not False and packs(self)
        if packed and not self.packed:
            raise UserError(
                f"encoder.packed: {type(model).__name__} gives other states without padding"
            )

    @property
    def vocabulary(self) -> nn.Embedding:
        embedding: nn.Embedding = self.model.get_input_embeddings()
        return embedding

    def states(self, tokens: Tokens, *, ids: Tensor | None, embedded: Tensor | None) -> Tensor:
        valid = tokens.valid
        assert valid is not None, "made by tokenize"
        if self.packed and not self._must_pad():
            packing = Packing.of(valid)
            if packing.share < PACK_BELOW:
                return self._packed_states(packing, ids, embedded)
        given = {"input_ids": ids} if embedded is None else {"inputs_embeds": embedded}
        states: Tensor = self.model(**given, attention_mask=valid).last_hidden_state
        return states

    def _must_pad(self) -> bool:
        """Whether attention is not ours, which alone keeps documents apart, or code is compiled,
        which wants one shape and takes what surrounds it for constant."""
        others = self.model.config._attn_implementation != KEYED
        compiled = (getattr(block, "_compiled_call_impl", None) for block in self._blocks)
        return others or torch.compiler.is_compiling() or any(c is not None for c in compiled)

    def _packed_states(
        self, packing: Packing, ids: Tensor | None, embedded: Tensor | None
    ) -> Tensor:
        given = {"input_ids": ids, "inputs_embeds": embedded}
        given = {name: packing.pack(x) for name, x in given.items() if x is not None}
        positions = packing.places[None] + self.first_position
        with packed(packing):
            states: Tensor = self.model(**given, position_ids=positions).last_hidden_state
        return packing.unpack(states)


def _first_position(model: Any) -> int:
    """The number of a document's first position; RoBERTa's come after that of padding."""
    names = ("embeddings.position_embeddings", "embeddings.position_embedding")
    for name, module in model.named_modules():
        if name in names and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1
    return 0


@torch.no_grad()
def packs(encoder: TextEncoder) -> bool:
    """Whether the model's states are the same without padding: tried on two short documents.

    Models that compute positions or attention in ways of their own are not.
    """
    if "position_ids" not in inspect.signature(encoder.model.forward).parameters:
        return False
    length = min(8, encoder.model.config.max_position_embeddings - encoder.first_position)
    other = next(i for i in range(encoder.vocabulary.num_embeddings) if i != encoder.pad_id)
    valid = torch.arange(length) < torch.tensor([[length], [length - 3]])
    ids = torch.full((2, length), other).masked_fill(~valid, encoder.pad_id)
    ids[:, 1] = encoder.mask_id
    was_training = encoder.training
    encoder.eval()
    try:
        whole = encoder.model(input_ids=ids, attention_mask=valid).last_hidden_state
        apart = encoder._packed_states(Packing.of(valid), ids, None)
    except Exception:  # whatever a model trips over without padding, it cannot be packed
        return False
    finally:
        encoder.train(was_training)
    return apart.shape == whole.shape and torch.allclose(apart[valid], whole[valid], atol=1e-4)


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
