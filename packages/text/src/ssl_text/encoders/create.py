"""Encoders by name: BERT in the sizes of Turc et al. (2019), `hf:<type>` for any other Transformer,
small recurrent and convolutional networks.

All start from random weights; sizes can be changed by option.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import transformers

from ssl_core.errors import UserError, unknown
from ssl_text.encoders.attention import NAME as KEYED
from ssl_text.encoders.base import Pooling
from ssl_text.encoders.convolution import ConvEncoder
from ssl_text.encoders.recurrent import Cell, RecurrentEncoder
from ssl_text.encoders.transformer import TextEncoder, check_keyed

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
    init: float = 0.02,
    pooling: Pooling = "mean",
    packed: bool | None = None,
) -> TextEncoder:
    """BERT (Devlin et al. 2019): post-norm Transformer, learned positions, GELU.

    Arguments: `depth` layers of width `dim` with `heads` heads and MLPs of `mlp_ratio * dim`;
    `dropout` after embeddings and sub-layers, `attention_dropout` on attention weights; `init`
    is the deviation of the first weights. BERT's 0.02 is made for a width of 768: in narrow
    layers what attention adds is then faint beside what passes by it.
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
        initializer_range=init,
        **_sizes(spec),
    )
    config._attn_implementation = KEYED
    return _wrap(transformers.BertModel(config, add_pooling_layer=False), spec, pooling, packed)


# Layers, width and heads of the released small models and of BERT-base.
bert_tiny = partial(bert, depth=2, dim=128, heads=2)
bert_mini = partial(bert, depth=4, dim=256, heads=4)
bert_small = partial(bert, depth=4, dim=512, heads=8)
bert_medium = partial(bert, depth=8, dim=512, heads=8)
bert_base = partial(bert, depth=12, dim=768, heads=12)


def from_config(
    name: str,
    spec: Mapping[str, Any],
    *,
    pooling: Pooling = "mean",
    packed: bool | None = None,
    **overrides: Any,
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
    encoder = _wrap(model, spec, pooling, packed)
    check_keyed(encoder, length=spec["max_length"], name=name)
    return encoder


def recurrent(
    spec: Mapping[str, Any],
    *,
    cell: Cell,
    dim: int = 256,
    depth: int = 2,
    dropout: float = 0.1,
    pooling: Pooling = "mean",
) -> RecurrentEncoder:
    """A bidirectional recurrent network of `depth` layers; `dim` counts both directions."""
    sizes = {"dim": dim, "depth": depth, "dropout": dropout}
    return RecurrentEncoder(spec["vocab_size"], cell=cell, **sizes, **_ids(spec), pooling=pooling)


gru = partial(recurrent, cell="gru")
lstm = partial(recurrent, cell="lstm")


def cnn(
    spec: Mapping[str, Any],
    *,
    dim: int = 256,
    depth: int = 6,
    kernel: int = 5,
    cycle: int = 3,
    dropout: float = 0.1,
    pooling: Pooling = "mean",
) -> ConvEncoder:
    """Residual dilated convolutions; dilations 1, 2, 4, ... start anew after `cycle` blocks."""
    sizes = {"dim": dim, "depth": depth, "kernel": kernel, "cycle": cycle, "dropout": dropout}
    return ConvEncoder(spec["vocab_size"], **sizes, **_ids(spec), pooling=pooling)


def _sizes(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the data decides. RoBERTa-like models number positions from pad_id + 1."""
    roles = {"pad": "pad", "cls": "cls", "sep": "sep", "bos": "cls", "eos": "sep"}
    return {
        "vocab_size": spec["vocab_size"],
        "max_position_embeddings": spec["max_length"] + spec["pad_id"] + 1,
        **{f"{role}_token_id": spec[f"{ours}_id"] for role, ours in roles.items()},
    }


def _wrap(
    model: Any, spec: Mapping[str, Any], pooling: Pooling, packed: bool | None
) -> TextEncoder:
    return TextEncoder(model, **_ids(spec), pooling=pooling, packed=packed)


def _ids(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {name: spec[name] for name in ("mask_id", "special_ids", "pad_id")}
