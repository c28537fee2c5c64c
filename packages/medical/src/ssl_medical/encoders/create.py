"""`create_encoder`: one verb for our own encoders and MONAI's, with random or stored weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ssl_core.networks.weights import load_weights
from ssl_core.registry import Registry
from ssl_medical.encoders import ENCODERS

_log = logging.getLogger(__name__)


def create_encoder(
    name: str, spec: Mapping[str, Any], *, weights: str | Path | None = None, **options: Any
) -> nn.Module:
    """An encoder for scans with these facts.

    `weights` is a safetensors file of the same network, for `monai_*` also one with the names of
    MONAI's whole network; `UserError` when less than 90 % of the encoder's tensors match.
    """
    encoder: nn.Module = Registry("encoder", ENCODERS).build(name, spec, options=options)
    if weights is not None:
        inner = getattr(encoder, "model", encoder)
        report = load_weights(inner, weights, adapt=getattr(encoder, "adapt_weights", None))
        encoder.weight_report = report  # type: ignore[assignment]
        _log.info("weights %s: %s", weights, report)
    return encoder
