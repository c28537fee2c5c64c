"""`create_encoder`: one verb for our own encoders and torchvision's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ssl_core.errors import unknown
from ssl_core.networks.weights import load_weights
from ssl_core.registry import Registry
from ssl_video.encoders import ENCODERS

_log = logging.getLogger(__name__)


def create_encoder(
    name: str, spec: Mapping[str, Any], *, weights: str | Path | None = None, **options: Any
) -> nn.Module:
    """An encoder for clips with these facts, with random weights or those of a file.

    `name` is one of our own (`vit_base_patch16`, `resnet3d_nano`), a torchvision video model
    (`r2plus1d_18`, `mvit_v2_s`, `swin3d_t`) or `frames/resnet50`: an image network on every frame,
    pooled over time. `weights` is a safetensors file of the same network, for our transformers also
    one of transformers' VideoMAE; `UserError` when less than 90 % of its tensors match, and
    `encoder.weight_report` says what did. Other options go to the model.
    """
    encoder = _build(name, spec, options)
    if weights is not None:
        inner = encoder if name in ENCODERS else encoder.get_submodule("model")
        adapt = getattr(encoder, "adapt_weights", None)
        report = load_weights(inner, weights, adapt=adapt)
        encoder.weight_report = report  # type: ignore[assignment]
        _log.info("weights %s: %s", weights, report)
    return encoder


def _build(name: str, spec: Mapping[str, Any], options: Mapping[str, Any]) -> nn.Module:
    if name in ENCODERS:
        own: nn.Module = Registry("encoder", ENCODERS).build(name, spec, options=options)
        return own
    from ssl_video.encoders import torchvision_models as tv

    if name.startswith(tv.FRAMES):
        return tv.build_frames(name.removeprefix(tv.FRAMES), spec, **options)
    if name in tv.video_names():
        return tv.build_video(name, spec, **options)
    raise unknown("encoder", name, encoder_names())


def encoder_names() -> list[str]:
    """Every name `create_encoder` takes: ours, torchvision's video models, frame by frame ones."""
    from ssl_video.encoders import torchvision_models as tv

    return [*sorted(ENCODERS), *tv.video_names(), *(tv.FRAMES + n for n in tv.image_names())]
