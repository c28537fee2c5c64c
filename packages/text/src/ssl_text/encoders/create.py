"""Encoders by name: BERT in the sizes of Turc et al. (2019), and `hf:<type>` for any other.

All start from random weights; sizes can be changed by option.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import transformers

from ssl_core.errors import UserError, unknown
from ssl_text.encoders.attention import NAME as KEYED
from ssl_text.encoders.transformer import Pooling, TextEncoder, check_keyed

PREFIX = "hf:"


def bert(
    spec: Mapping[str, Any],
    *,
    depth: int,
    dim: int,
    heads: int,
    mlp_ratio: float = 4.0,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    pooling: Pooling = "mean",
) -> TextEncoder:
    """BERT (Devlin et al. 2019): post-norm Transformer, learned positions, GELU.

    Arguments: `depth` layers of width `dim` with `heads` heads and MLPs of `mlp_ratio * dim`;
    `dropout` after embeddings and sub-layers, `attention_dropout` on attention weights.
    """
    if dim % heads:
        raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
    config = transformers.BertConfig(
        num_hidden_layers=depth,
        hidden_size=dim,
        num_attention_heads=heads,
        intermediate_size=int(mlp_ratio * dim),
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=attention_dropout,
        **_sizes(spec),
    )
    config._attn_implementation = KEYED
    return _wrap(transformers.BertModel(config, add_pooling_layer=False), spec, pooling)


# Layers, width and heads of the released small models and of BERT-base.
bert_tiny = partial(bert, depth=2, dim=128, heads=2)
bert_mini = partial(bert, depth=4, dim=256, heads=4)
bert_small = partial(bert, depth=4, dim=512, heads=8)
bert_medium = partial(bert, depth=8, dim=512, heads=8)
bert_base = partial(bert, depth=12, dim=768, heads=12)


def from_config(
    name: str, spec: Mapping[str, Any], *, pooling: Pooling = "mean", **overrides: Any
) -> TextEncoder:
    """`hf:<model type>`: the library's configuration of that type, with fields overridden.

    Raises `UserError` for unknown types and fields, for models that are not encoders of token
    ids, and for models whose dropout cannot be keyed by sample.
    """
    kind = name.removeprefix(PREFIX)
    known = transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    if kind not in known:
        raise unknown("encoder hf: model type", kind, known)
    plain = transformers.AutoConfig.for_model(kind)
    for field in overrides:
        if not hasattr(plain, field):
            raise unknown(f"encoder {name} option", field, plain.to_dict())
    sizes = _sizes(spec)
    config = transformers.AutoConfig.for_model(kind, **{**sizes, **overrides})
    if config.is_encoder_decoder:
        raise UserError(f"encoder: {name} is an encoder with a decoder; choose an encoder")
    try:
        model = transformers.AutoModel.from_config(config, attn_implementation=KEYED)
    except ValueError as error:
        raise UserError(f"encoder: {name}: {error}") from error
    encoder = _wrap(model, spec, pooling)
    check_keyed(encoder, length=spec["max_length"], name=name)
    return encoder


def _sizes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the data decides. RoBERTa-like models number positions from pad_id + 1."""
    roles = {"pad": "pad", "cls": "cls", "sep": "sep", "bos": "cls", "eos": "sep"}
    return {
        "vocab_size": spec["vocab_size"],
        "max_position_embeddings": spec["max_length"] + spec["pad_id"] + 1,
        **{f"{role}_token_id": spec[f"{ours}_id"] for role, ours in roles.items()},
    }


def _wrap(model: Any, spec: Mapping[str, Any], pooling: Pooling) -> TextEncoder:
    return TextEncoder(
        model,
        mask_id=spec["mask_id"],
        special_ids=spec["special_ids"],
        pad_id=spec["pad_id"],
        pooling=pooling,
    )
