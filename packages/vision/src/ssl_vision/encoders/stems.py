"""First layers that fit the data: any number of channels, small images for ResNets."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ssl_core.errors import UserError

SMALL_STEM = "has_small_stem"
"""Set on a model whose stem was replaced: its weights no longer suit the library's own model."""

Stem = Literal["auto", "cifar", "imagenet"]
_SMALL = 64
"""Up to this side, the 7 x 7 convolution of stride 2 and the pooling lose too much (CIFAR)."""


def replace_conv(parent: nn.Module, name: str, **changes: object) -> None:
    """Rebuilds the convolution `parent.name` with other settings and a fresh start."""
    old = getattr(parent, name)
    settings = {
        key: getattr(old, key)
        for key in ("in_channels", "out_channels", "kernel_size", "stride", "padding")
    }
    conv = nn.Conv2d(**(settings | changes), bias=old.bias is not None)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    setattr(parent, name, conv.to(old.weight.device))


def first_conv(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the first convolution, and its name there."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                return parent, name
    raise UserError(f"encoder: {type(model).__name__} has no convolution to set channels of")


def set_stem(model: nn.Module, stem: Stem, side: int) -> None:
    """Gives a ResNet the 3 x 3 stem without pooling that small images need.

    "auto" does so up to 64 pixels a side and leaves other networks alone; "cifar" insists;
    "imagenet" keeps what the library made.
    """
    if stem not in ("auto", "cifar", "imagenet"):
        raise UserError(f"encoder option stem: {stem!r}; choose auto, cifar or imagenet")
    if stem == "imagenet" or (stem == "auto" and side > _SMALL):
        return
    if not all(hasattr(model, name) for name in ("conv1", "maxpool", "layer4")):
        if stem == "cifar":
            raise UserError(
                f"encoder option stem: cifar is for ResNets, not {type(model).__name__}"
            )
        return
    if isinstance(model.conv1, nn.Sequential):  # three 3 x 3 convolutions (ResNet-D)
        replace_conv(model.conv1, "0", stride=1)
    else:
        replace_conv(model, "conv1", kernel_size=3, stride=1, padding=1)
    model.maxpool = nn.Identity()
    setattr(model, SMALL_STEM, True)
