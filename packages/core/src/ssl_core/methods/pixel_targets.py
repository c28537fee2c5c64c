"""Patches as targets of masked methods, and predictions of them back in the input's units."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.methods.masked import Target
from ssl_core.networks.masks import Mask
from ssl_core.objectives import normalise_channels, normalise_patches

Norm = bool | Literal["channel"]


def pixel_target(encoder: nn.Module, norm: Norm) -> Target:
    """Patch contents, normalised per patch (True), per patch and channel, or as they are."""
    if norm == "channel":
        channels = _channels(encoder)
        return lambda tokens, mask: normalise_channels(tokens.values, channels)
    if not isinstance(norm, bool):
        raise ValueError(f"norm_pixels must be true, false or 'channel', got {norm!r}")
    return _normalised if norm else _content


def pixels_of(encoder: nn.Module, norm: Norm, predicted: Tensor, tokens: Tokens) -> Tensor:
    """Predictions in the units of the input, by each true patch's own mean and deviation."""
    if not norm:
        return predicted
    parts = (-1, _channels(encoder) if norm == "channel" else 1)  # numbers normalised together
    std, mean = torch.std_mean(tokens.values.unflatten(-1, parts), -2, keepdim=True)
    pixels: Tensor = (predicted.unflatten(-1, parts) * std + mean).flatten(-2)
    return pixels


def _channels(encoder: nn.Module) -> int:
    channels: int = encoder.patch_embed.proj.in_channels  # type: ignore[union-attr,assignment]
    return channels


def _normalised(tokens: Tokens, mask: Mask) -> Tensor:
    return normalise_patches(tokens.values)


def _content(tokens: Tokens, mask: Mask) -> Tensor:
    return tokens.values
