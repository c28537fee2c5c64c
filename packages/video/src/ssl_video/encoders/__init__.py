"""Encoders for clips `[B, C, T, H, W]`: our own by name, and torchvision's."""

from __future__ import annotations

_SIZES = ("nano", "small", "base", "large", "huge")

ENCODERS = {
    "resnet3d_nano": "ssl_video.encoders.resnet_nano:resnet3d_nano",
    **{
        f"vit_{size}_patch{patch}": f"ssl_video.encoders.vit:vit_{size}_patch{patch}"
        for size in _SIZES
        for patch in (4, 8, 14, 16)
    },
}
"""Own encoders: name -> "module:factory", for a registry; nothing is imported."""
