"""Weights under torchvision's names, for its own models without their classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from ssl_core.errors import UserError
from ssl_core.files import write_json
from ssl_core.runs.exporting import Answer, kept_if_proven, prove
from ssl_core.runs.model import Model
from ssl_core.tensors import read_tensors, write_tensors
from ssl_vision.encoders.stems import SMALL_STEM
from ssl_vision.encoders.torchvision_models import TorchvisionEncoder, without_head
from ssl_vision.encoders.vit import VisionTransformer


def export_torchvision(model: Model, folder: Path) -> Path:
    """`model.safetensors` and, in `config.json`, the model and arguments it belongs to.

    Torchvision's own models keep their names; our vision transformers (RGB, class token) become
    torchvision's `VisionTransformer`. Raises `UserError` for all others.
    """
    encoder = model.encoder
    if isinstance(encoder, TorchvisionEncoder):
        config, tensors, build = _own(encoder, model)
    elif isinstance(encoder, VisionTransformer):
        config, tensors, build = _transformer(encoder)
    else:
        raise UserError(
            f"format: {type(encoder).__name__} has no torchvision counterpart; use format "
            "'timm', 'safetensors' or 'onnx', or pretrain with encoder torchvision/NAME"
        )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    write_tensors(file, tensors)
    write_json(folder / "config.json", config)
    with kept_if_proven(file):
        again = build()
        again.load_state_dict(read_tensors(file))
        prove(model, "model", _answer(again.eval()), folder)
    return folder


def _own(encoder: TorchvisionEncoder, model: Model) -> tuple[dict[str, Any], Any, Any]:
    if getattr(encoder.model, SMALL_STEM, False) or int(model.reader.spec["channels"]) != 3:
        raise UserError(
            "format: this network's first layer is not torchvision's (small images, or other "
            "channels than RGB); use format 'safetensors' or 'onnx', or pretrain RGB images with "
            "encoder.stem=imagenet"
        )
    name, options = encoder.torchvision_name, dict(encoder.torchvision_settings)

    def build() -> nn.Module:
        network: nn.Module = models.get_model(name, weights=None, **options)
        without_head(network)
        return network

    return {"model": name, "arguments": options}, encoder.model.state_dict(), build


def _transformer(encoder: VisionTransformer) -> tuple[dict[str, Any], Any, Any]:
    sides = encoder.sides
    if (
        encoder.pool != "cls"
        or encoder.positions not in ("learned", "sincos")
        or encoder.channels != 3
        or sides[0] != sides[1]
        or any(hasattr(block.ls1, "gamma") for block in encoder.blocks)
    ):
        raise UserError(
            "format: torchvision's vision transformer takes square RGB images, has a class token "
            "as its answer, learned positions and no layer scale; use format 'timm', "
            "'transformers', 'safetensors' or 'onnx'"
        )
    first: Any = encoder.blocks[0]
    arguments = {
        "image_size": sides[0],
        "patch_size": encoder.patch_side,
        "num_layers": len(encoder.blocks),
        "num_heads": first.attn.heads,
        "hidden_dim": encoder.embed_dim,
        "mlp_dim": first.mlp.fc1.out_features,
    }

    def build() -> nn.Module:
        network = models.VisionTransformer(**arguments)
        without_head(network)
        return network

    config = {"model": "VisionTransformer", "arguments": arguments}
    return config, dict(_renamed(encoder.timm_state_dict())), build


_PARTS = {
    "norm1": "ln_1",
    "attn.qkv.weight": "self_attention.in_proj_weight",
    "attn.qkv.bias": "self_attention.in_proj_bias",
    "attn.proj": "self_attention.out_proj",
    "norm2": "ln_2",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
}


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names of a vision transformer as torchvision's."""
    out = {}
    for name, tensor in tensors.items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            old = next(part for part in _PARTS if rest.startswith(part))
            new = _PARTS[old] + rest.removeprefix(old)
            name = f"encoder.layers.encoder_layer_{number}.{new}"
        else:
            name = (
                name.replace("patch_embed.proj", "conv_proj")
                .replace("cls_token", "class_token")
                .replace("pos_embed", "encoder.pos_embedding")
                .replace("norm.", "encoder.ln.")
            )
        out[name] = tensor
    return out


def _answer(network: nn.Module) -> Answer:
    """The model's own output without its classifier, flat."""

    def answer(data: Tensor) -> Tensor:
        found: Tensor = network(data)
        return torch.flatten(found, 1)

    return answer
