"""A folder for transformers: an AST as `ASTModel`, a wave encoder as `Wav2Vec2Model`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ssl_audio.encoders.ast import AST
from ssl_audio.encoders.wave import KERNELS, REACH, STEP, STRIDES, WaveTransformer
from ssl_audio.features import PRESETS
from ssl_core.errors import UserError
from ssl_core.runs.exporting import kept_if_proven, prove
from ssl_core.runs.model import Model

AFTER = REACH - STEP
"""Zeros after a wave, with which transformers counts as many frames as the encoder does."""


def export_transformers(model: Model, folder: Path) -> Path:
    """Writes what `AutoModel.from_pretrained(folder)` loads; proves it through that call.

    An AST's pooled features are `pooler_output` of log-mel `[B, frames, mels]`; those of a wave
    encoder are the mean of `last_hidden_state` of waves followed by 80 zeros. A feature extractor
    is written where transformers has one that computes the run's features. Raises `UserError` for
    encoders without a counterpart.
    """
    from transformers import AutoModel

    encoder = model.encoder
    spec = {**model.reader.spec, **getattr(model.views, "spec", {})}
    answer: Callable[[Any, Tensor], Tensor]
    if isinstance(encoder, AST):
        network, extractor, answer = _ast(encoder), _fbank(spec), _ast_answer
    elif isinstance(encoder, WaveTransformer):
        network, extractor, answer = _wav2vec2(encoder), _waves(spec), _wave_answer
    else:
        raise UserError(
            f"format: {type(encoder).__name__} has no counterpart in transformers, ast and wave "
            "encoders have; use format 'safetensors' or 'onnx'"
        )
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder)
    if extractor is not None:
        extractor.save_pretrained(folder)
    with kept_if_proven(folder / "model.safetensors"):
        again = AutoModel.from_pretrained(folder).eval()
        prove(model, "model", lambda data: answer(again, data), folder)
    return folder


def _ast(encoder: AST) -> Any:
    network = copy.deepcopy(encoder.model)
    network.config._attn_implementation = "sdpa"
    return network


def _ast_answer(network: Any, data: Tensor) -> Tensor:
    pooled: Tensor = network(data[:, 0].transpose(1, 2)).pooler_output
    return pooled


def _wave_answer(network: Any, data: Tensor) -> Tensor:
    pooled: Tensor = network(F.pad(data, (0, AFTER))).last_hidden_state.mean(1)
    return pooled


def _fbank(spec: Mapping[str, Any]) -> Any:
    """transformers' extractor, which knows AST's own features alone; None for others."""
    if spec["features"] != "fbank128" or int(spec["rate"]) != PRESETS["fbank128"].rate:
        return None
    from transformers import ASTFeatureExtractor

    return ASTFeatureExtractor(
        num_mel_bins=int(spec["mels"]),
        max_length=int(spec["frames"]),
        mean=float(spec["mean"]),
        std=float(spec["std"]) / 2,  # it divides by twice the deviation
    )


def _waves(spec: Mapping[str, Any]) -> Any:
    from transformers import Wav2Vec2FeatureExtractor

    return Wav2Vec2FeatureExtractor(sampling_rate=int(spec["rate"]), do_normalize=True)


def _wav2vec2(encoder: WaveTransformer) -> Any:
    """A `Wav2Vec2Model` with this encoder's weights."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    first: Any = encoder.blocks[0]
    if hasattr(first.ls1, "gamma"):
        raise UserError("format: transformers' wav2vec 2.0 has no layer scale")
    places: Any = encoder.places.conv
    config = Wav2Vec2Config(
        hidden_size=encoder.embed_dim,
        num_hidden_layers=len(encoder.blocks),
        num_attention_heads=first.attn.heads,
        intermediate_size=first.mlp.fc1.out_features,
        conv_dim=[encoder.local_dim] * len(KERNELS),
        conv_kernel=list(KERNELS),
        conv_stride=list(STRIDES),
        conv_bias=False,
        feat_extract_norm="group",
        do_stable_layer_norm=True,  # norms stand before attention and MLP
        num_conv_pos_embeddings=places.kernel_size[0],
        num_conv_pos_embedding_groups=places.groups,
        layer_norm_eps=first.norm1.eps,
        layerdrop=0.0,
        apply_spec_augment=False,
    )
    network = Wav2Vec2Model(config)
    tensors = _renamed(encoder.state_dict())
    spare = {name: x for name, x in network.state_dict().items() if name == _MASK}
    network.load_state_dict({**spare, **tensors})
    return network


_MASK = "masked_spec_embed"
_OUTSIDE = {
    "mask_token": _MASK,
    "front_norm": "feature_projection.layer_norm",
    "project": "feature_projection.projection",
    "places.conv": "encoder.pos_conv_embed.conv",
    "norm": "encoder.layer_norm",
}
_BLOCK = {
    "norm1": "layer_norm",
    "attn.proj": "attention.out_proj",
    "norm2": "final_layer_norm",
    "mlp.fc1": "feed_forward.intermediate_dense",
    "mlp.fc2": "feed_forward.output_dense",
}


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's names as transformers', queries, keys and values apart."""
    out: dict[str, Tensor] = {}
    convolution = -1
    for name, tensor in tensors.items():
        if name.startswith("front.layers."):
            if tensor.dim() == 3:
                convolution += 1
            part = "conv" if tensor.dim() == 3 else "layer_norm"
            kind = name.rsplit(".", 1)[1]
            out[f"feature_extractor.conv_layers.{convolution}.{part}.{kind}"] = tensor
        elif name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            layer = f"encoder.layers.{number}"
            if rest.startswith("attn.qkv."):
                kind = rest.removeprefix("attn.qkv.")
                for letter, x in zip("qkv", tensor.chunk(3), strict=True):
                    out[f"{layer}.attention.{letter}_proj.{kind}"] = x
                continue
            old = next(part for part in _BLOCK if rest.startswith(part))
            out[f"{layer}.{_BLOCK[old]}{rest.removeprefix(old)}"] = tensor
        else:
            old = next(part for part in _OUTSIDE if name.startswith(part))
            moved = _OUTSIDE[old] + name.removeprefix(old)
            out[moved] = tensor.reshape(-1) if old == "mask_token" else tensor
    return out


def loading(format: str, path: Path) -> str | None:
    """Python that loads what `export --format` wrote; None for the core's own formats."""
    if format != "transformers":
        return None
    return (
        "import torch\n"
        "from transformers import AutoModel\n"
        'model = AutoModel.from_pretrained("FOLDER").eval()\n'
        "# AST: log-mel [B, frames, mels], as transformers' AST takes them\n"
        "pooled = model(inputs[:, 0].transpose(1, 2)).pooler_output\n"
        f"# wave encoders: waves [B, T] of mean 0 and variance 1, then {AFTER} zeros\n"
        f"pooled = model(torch.nn.functional.pad(inputs, (0, {AFTER}))).last_hidden_state.mean(1)"
    )
