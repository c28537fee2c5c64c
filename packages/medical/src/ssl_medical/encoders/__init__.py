"""Encoders of volumes `[B, C, X, Y, Z]` and slices `[B, C, X, Y]`: our own, and MONAI's."""

from __future__ import annotations

_SIZES = ("nano", "small", "base", "large")

ENCODERS = {
    "resnet_nano": "ssl_medical.encoders.resnet_nano:resnet_nano",
    "unet_nano": "ssl_medical.encoders.unet_nano:unet_nano",
    **{
        f"vit_{size}_patch{patch}": f"ssl_medical.encoders.vit:vit_{size}_patch{patch}"
        for size in _SIZES
        for patch in (4, 8, 16)
    },
    "cswin_nano": "ssl_medical.encoders.cswin:nano",
    "cswin_tiny": "ssl_medical.encoders.cswin:tiny",
    "cswin_unet_nano": "ssl_medical.encoders.cswin_unet:nano",
    "cswin_unet_tiny": "ssl_medical.encoders.cswin_unet:tiny",
    **{
        f"monai_{name}": f"ssl_medical.encoders.monai_models:{name}"
        for name in ("segresnet", "dynunet", "swin_unetr", "vit", "resnet")
    },
}
"""Name -> "module:factory", for a registry; nothing is imported."""
