"""Patches as targets of masked methods, and predictions of them back in the input's units."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.methods.masked import Target
from ssl_core.objectives import normalise_channels, normalise_patches

Norm = bool | Literal["channel"]


def pixel_target(encoder: nn.Module, norm: Norm, *, hidden_only: bool = False) -> Target:
    """Patch contents, normalised per patch (True), per patch and channel, or as they are.

    Of every token, `[B, N, P]`, or of hidden ones alone, `[B, H, P]` (masks in drop mode).
    """
    normalised = _normaliser(encoder, norm)
    if hidden_only:
        return lambda tokens, mask: normalised(mask.concealed(tokens.values))
    return lambda tokens, mask: normalised(tokens.values)


def _normaliser(encoder: nn.Module, norm: Norm) -> Callable[[Tensor], Tensor]:
    if norm == "channel":
        return partial(normalise_channels, channels=_channels(encoder))
    if not isinstance(norm, bool):
        raise ValueError(f"norm_pixels must be true, false or 'channel', got {norm!r}")
    return normalise_patches if norm else lambda patches: patches


def pixels_of(encoder: nn.Module, norm: Norm, predicted: Tensor, patches: Tensor) -> Tensor:
    """Predictions in the units of the input, by the mean and deviation of each of the true
    `patches`; both `[B, N, P]`."""
    if not norm:
        return predicted
    parts = (-1, _channels(encoder) if norm == "channel" else 1)  # numbers normalised together
    std, mean = torch.std_mean(patches.unflatten(-1, parts), -2, keepdim=True)
    pixels: Tensor = (predicted.unflatten(-1, parts) * std + mean).flatten(-2)
    return pixels


def _channels(encoder: nn.Module) -> int:
    channels: int = encoder.patch_embed.proj.in_channels  # type: ignore[union-attr,assignment]
    return channels
