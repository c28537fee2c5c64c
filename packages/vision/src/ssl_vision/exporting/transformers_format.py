"""A folder for transformers: a vision transformer as `ViTModel`, with layer scale as DINOv2's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.files import write_json
from ssl_core.runs.exporting import kept_if_proven, prove
from ssl_core.runs.model import Model
from ssl_vision.encoders.timm_models import TimmEncoder
from ssl_vision.encoders.timm_vit import TimmViT
from ssl_vision.encoders.transformers_models import TransformersEncoder, without_pooler
from ssl_vision.encoders.vit import VisionTransformer
from ssl_vision.exporting.timm_format import export_timm


def export_transformers(model: Model, folder: Path) -> Path:
    """Writes what `AutoModel.from_pretrained(folder)` loads; proves it through that call.

    Pooled features are `last_hidden_state[:, 0]`, or the mean of the rows after it, as the run's
    encoder pools; a timm network becomes transformers' timm wrapper, whose `pooler_output` they
    are; a network of transformers is saved as it is. Raises `UserError` for other encoders.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UserError(
            "format: transformers is not installed; pip install 'ssl-vision[transformers]'"
        )
    from transformers import AutoModel

    encoder = model.encoder
    file = folder / "model.safetensors"
    extra: dict[str, Any] = {}
    if isinstance(encoder, VisionTransformer):
        network = _transformer(encoder)
        network.save_pretrained(folder)
        pooled = _pooling(encoder.pool)
        if type(network).__name__ == "ViTModel":
            extra["add_pooling_layer"] = False  # no method here trains that layer
    elif isinstance(encoder, (TimmEncoder, TimmViT)):
        export_timm(model, folder)
        pooled = _wrapped
    elif isinstance(encoder, TransformersEncoder):
        encoder.model.save_pretrained(folder)
        extra = without_pooler(encoder.model.config)
        pooled = encoder.pooled
    else:
        raise UserError(
            f"format: {type(encoder).__name__} has no transformers counterpart; use format "
            "'safetensors' or 'onnx'"
        )
    _preprocessor(model, folder)
    with kept_if_proven(file):
        again = AutoModel.from_pretrained(folder, **extra).eval()
        prove(model, "model", lambda data: pooled(again(pixel_values=data)), folder)
    return folder


def _pooling(pool: str) -> Callable[[Any], Tensor]:
    def pooled(found: Any) -> Tensor:
        states: Tensor = found.last_hidden_state
        return states[:, 0] if pool == "cls" else states[:, 1:].mean(1)

    return pooled


def _wrapped(found: Any) -> Tensor:
    pooled: Tensor = found.pooler_output
    return pooled


def _transformer(encoder: VisionTransformer) -> Any:
    from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

    scaled = any(hasattr(block.ls1, "gamma") for block in encoder.blocks)
    if encoder.cls_token is None or encoder.positions not in ("learned", "sincos"):
        raise UserError(
            "format: transformers' vision transformer has a class token and learned positions; "
            "use format 'timm', 'safetensors' or 'onnx'"
        )
    if scaled and encoder.sides[0] != encoder.sides[1]:
        raise UserError("format: transformers' DINOv2 takes square images; use format 'timm'")
    first: Any = encoder.blocks[0]
    hidden: int = first.mlp.fc1.out_features
    common = {
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": first.attn.heads,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "patch_size": encoder.patch_side,
        "num_channels": encoder.channels,
        "qkv_bias": True,
    }
    if scaled:
        if hidden % encoder.embed_dim:
            raise UserError(
                "format: transformers' DINOv2 takes whole mlp ratios; use format 'timm'"
            )
        config = Dinov2Config(
            image_size=encoder.sides[0], mlp_ratio=hidden // encoder.embed_dim, **common
        )
        network: nn.Module = Dinov2Model(config)
    else:
        config = ViTConfig(image_size=list(encoder.sides), intermediate_size=hidden, **common)
        network = ViTModel(config, add_pooling_layer=False)
    tensors = _renamed(encoder.timm_state_dict(), scaled=scaled)
    unused = network.state_dict().keys() - tensors.keys()
    network.load_state_dict(
        {**tensors, **{name: network.state_dict()[name] for name in unused & {_MASK}}}
    )
    return network


_MASK = "embeddings.mask_token"
_BLOCK = {
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}


def _renamed(tensors: dict[str, Tensor], *, scaled: bool) -> dict[str, Tensor]:
    """timm's names as transformers', queries, keys and values apart."""
    block = "encoder.layer" if scaled else "layers"
    norms = ("norm1", "norm2") if scaled else ("layernorm_before", "layernorm_after")
    parts = {**_BLOCK, "norm1": norms[0], "norm2": norms[1]}
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith("blocks."):
            out[_outside(name)] = tensor
            continue
        _, number, rest = name.split(".", 2)
        if rest.startswith("attn.qkv."):
            for part, x in zip("qkv", tensor.chunk(3), strict=True):
                kind = rest.removeprefix("attn.qkv.")
                out[f"{block}.{number}.attention.{part}_proj.{kind}"] = x
            continue
        old = next(part for part in parts if rest.startswith(part))
        out[f"{block}.{number}.{parts[old]}{rest.removeprefix(old)}"] = tensor
    return out


def _outside(name: str) -> str:
    return (
        name.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        .replace("cls_token", "embeddings.cls_token")
        .replace("pos_embed", "embeddings.position_embeddings")
        .replace("norm.", "layernorm.")
    )


def _preprocessor(model: Model, folder: Path) -> None:
    """How 8-bit RGB images become inputs; for other data the card says it."""
    spec: dict[str, Any] = {**model.reader.spec, **getattr(model.views, "spec", {})}
    if spec["channels"] != 3 or spec["dtype"] != "uint8":
        return
    side = int(spec.get("view_size", spec["size"]))
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec["mean"]),
        "image_std": list(spec["std"]),
    }
    write_json(folder / "preprocessor_config.json", settings)
