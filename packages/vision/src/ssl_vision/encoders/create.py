"""`create_encoder`: one verb for our own encoders, timm's, torchvision's and transformers'."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ssl_core.errors import unknown
from ssl_core.networks.weights import load_best
from ssl_core.registry import Registry
from ssl_vision.encoders import ENCODERS

_log = logging.getLogger("ssl_core.weights")


def create_encoder(
    name: str, spec: Mapping[str, Any], *, weights: str | Path | None = None, **options: Any
) -> nn.Module:
    """An encoder for images with these facts, with random weights or those of a file.

    `name` is one of our own (`vit_small_patch16`, `resnet_nano`), a timm model (`resnet50`,
    `timm/convnext_tiny`), a torchvision one (`torchvision/resnet18`) or a model type of
    transformers, or a folder of its (`transformers/dinov2`, `transformers/path/to/folder`); a name
    without library means ours, then timm's, then torchvision's. Input channels and positions follow
    `spec["channels"]` and `spec["size"]`. ResNets take `stem`: "cifar" (3 x 3, no pooling),
    "imagenet", or "auto" by image size. `weights` is a safetensors file of the same network;
    `UserError` when less than 90 % of its tensors match, and `encoder.weight_report` says what
    did. Other options go to the model.
    """
    encoder = _build(name, spec, options)
    if weights is not None:
        report = load_best(encoder, weights)
        encoder.weight_report = report  # type: ignore[assignment]
        _log.info("weights %s: %s", weights, report)
    return encoder


def _build(name: str, spec: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
    if name in ENCODERS:
        own: nn.Module = Registry("encoder", ENCODERS).build(name, spec, options=options)
        return own
    if name.startswith("transformers/"):
        from ssl_vision.encoders.transformers_models import build_transformers

        return build_transformers(name.removeprefix("transformers/"), spec, **options)
    library, _, model = name.rpartition("/")
    if library in ("", "timm"):
        import timm

        if library or timm.is_model(model):
            from ssl_vision.encoders.timm_models import build_timm

            return build_timm(model, spec, **options)
    if library in ("", "torchvision"):
        from ssl_vision.encoders.torchvision_models import build_torchvision, torchvision_names

        if library or model in torchvision_names():
            return build_torchvision(model, spec, **options)
    raise unknown("encoder", name, encoder_names())


def encoder_names() -> list[str]:
    """Every name `create_encoder` takes: ours, then timm's, then others' with their prefix."""
    import timm

    from ssl_vision.encoders.torchvision_models import torchvision_names
    from ssl_vision.encoders.transformers_models import TYPES

    others = [f"torchvision/{name}" for name in torchvision_names()]
    others += [f"transformers/{name}" for name in TYPES]
    return [*sorted(ENCODERS), *timm.list_models(), *others]
