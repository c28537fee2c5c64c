"""Encoders for images: our own by name, and any of timm's, torchvision's and transformers'."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_SIZES = {
    "nano": (2, 4, 8),
    "tiny": (2, 4, 8, 16),
    "small": (4, 8, 14, 16),
    "base": (4, 8, 14, 16),
    "large": (14, 16),
    "huge": (14, 16),
}

ENCODERS = {
    "resnet_nano": "ssl_vision.encoders.resnet_nano:resnet_nano",
    **{
        f"vit_{size}_patch{patch}": f"ssl_vision.encoders.vit:vit_{size}_patch{patch}"
        for size, patches in _SIZES.items()
        for patch in patches
    },
}
"""Own encoders: name -> "module:factory", for a registry; nothing is imported."""

_LAZY = {
    "create_encoder": "ssl_vision.encoders.create",
    "encoder_names": "ssl_vision.encoders.create",
    "VisionTransformer": "ssl_vision.encoders.vit",
    "ResNetNano": "ssl_vision.encoders.resnet_nano",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
