"""Targets made of a teacher's features; no gradient flows into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.objectives.precision import full_precision

Each = Literal["instance", "layer", "none"]


@torch.no_grad()
@full_precision
def average_layers(
    layers: Sequence[Tensor],
    *,
    each: Each = "instance",
    layer_norm: bool = True,
    valid: Tensor | None = None,
) -> Tensor:
    """Mean of a teacher's layers `[B, N, D]` (data2vec: Baevski et al. 2022, 2023).

    Before the mean, `each` layer is brought to mean 0 and variance 1 (biased, eps 1e-5):
    "instance" for every channel over the tokens of a sample, where padding (False in `valid`
    `[B, N]`) does not count, "layer" for every token over its channels. `layer_norm` does the
    latter to the mean.
    """
    if not layers:
        raise ValueError("average_layers: needs at least one layer")
    if each == "instance":
        layers = [_instance_norm(layer, valid) for layer in layers]
    elif each == "layer":
        layers = [normalise_features(layer) for layer in layers]
    elif each != "none":
        raise ValueError(f"average_layers: each must be instance, layer or none, got {each!r}")
    mean = torch.stack(list(layers)).mean(0)
    return normalise_features(mean) if layer_norm else mean


@full_precision
def normalise_features(x: Tensor) -> Tensor:
    """Every token of `[..., D]` to mean 0, variance 1 over its features (I-JEPA's targets)."""
    return F.layer_norm(x, x.shape[-1:])


@torch.no_grad()
@full_precision
def feature_std(x: Tensor, hidden: Tensor) -> Tensor:
    """Standard deviation over the tokens where `hidden` (bool `[B, N]`), mean over features.

    sqrt(unbiased variance + 1e-6). Near 0 the representation has collapsed.
    """
    weight = hidden.unsqueeze(-1).to(x.dtype)
    count = weight.sum()
    mean = (x * weight).sum((0, 1)) / count
    variance = ((x - mean).square() * weight).sum((0, 1)) / (count - 1).clamp(min=1)
    return (variance + 1e-6).sqrt().mean()


def _instance_norm(x: Tensor, valid: Tensor | None, eps: float = 1e-5) -> Tensor:
    if valid is None:
        centred = x - x.mean(1, keepdim=True)
        return centred * (centred.square().mean(1, keepdim=True) + eps).rsqrt()
    weight = valid.unsqueeze(-1).to(x.dtype)
    count = weight.sum(1, keepdim=True).clamp(min=1)
    x = torch.where(valid.unsqueeze(-1), x, 0.0)
    centred = x - (x * weight).sum(1, keepdim=True) / count
    variance = (centred.square() * weight).sum(1, keepdim=True) / count
    return centred * (variance + eps).rsqrt()
