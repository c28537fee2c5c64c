"""A folder for `timm.create_model("local-dir:FOLDER", pretrained=True)`, or for a model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from torch import nn

from ssl_core.errors import UserError
from ssl_core.files import write_json
from ssl_core.runs.exporting import kept_if_proven, prove, timm_tensors
from ssl_core.runs.model import Model
from ssl_core.tensors import write_tensors
from ssl_vision.encoders.spec import size_of
from ssl_vision.encoders.timm_models import TimmEncoder
from ssl_vision.encoders.timm_vit import TimmViT
from ssl_vision.encoders.vit import VisionTransformer


def export_timm(model: Model, folder: Path) -> Path:
    """`model.safetensors` with timm's names and `config.json` with its architecture.

    Transformers' `AutoModel.from_pretrained(folder)` reads the same folder through its timm
    wrapper. Raises `UserError` for encoders that timm does not have.
    """
    tensors = timm_tensors(model.encoder)
    if tensors is None:
        raise UserError(
            f"format: {type(model.encoder).__name__} has no timm counterpart; use format "
            "'safetensors' or 'onnx'"
        )
    name, arguments = _architecture(model.encoder)
    spec: dict[str, Any] = {**model.reader.spec, **getattr(model.views, "spec", {})}
    channels, sides = int(spec["channels"]), size_of(spec)
    config = {
        "architecture": name,
        "num_classes": 0,
        "num_features": model.dim,
        "model_args": {k: v for k, v in arguments.items() if k != "num_classes"},
        "pretrained_cfg": {
            "tag": "ssl",
            "custom_load": False,
            "input_size": [channels, *sides],
            "fixed_input_size": "img_size" in arguments,
            "interpolation": "bilinear",
            "crop_pct": float(getattr(model.views, "plain_fraction", 1.0)),
            "crop_mode": "center",
            "mean": list(spec["mean"]),
            "std": list(spec["std"]),
            "num_classes": 0,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    write_tensors(file, tensors)
    write_json(folder / "config.json", config)
    with kept_if_proven(file):
        again: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
        prove(model, "model", again.eval(), folder)
    return folder


def _architecture(encoder: nn.Module) -> tuple[str, dict[str, Any]]:
    """timm's name of a network, and the arguments that make it this one."""
    if isinstance(encoder, VisionTransformer):
        # Any size of plain vision transformer is this one with other arguments.
        return "vit_base_patch16_224", encoder.timm_arguments()
    if isinstance(encoder, (TimmEncoder, TimmViT)):
        return encoder.timm_name, dict(encoder.timm_settings)
    raise UserError(f"format: {type(encoder).__name__} has no timm counterpart")
