"""Self-supervised learning for images: files, on-device views, encoders, the command.

Importing this package is cheap; torch is imported when one of its names is first used.

    import ssl_vision
    run = ssl_vision.pretrain(data="photos/", method="simclr", out="runs/photos")
    vectors = ssl_vision.load(run).embed(images)
"""

from __future__ import annotations

import importlib
from typing import Any

_DOMAIN = "ssl_vision.domain:VISION"
_NAMES = {
    "VISION": "ssl_vision.domain:VISION",
    "ImageReader": "ssl_vision.reader:ImageReader",
    "create_encoder": "ssl_vision.encoders.create:create_encoder",
    "decode_image": "ssl_vision.decode:decode_image",
    "write_samples": "ssl_vision.samples:write_samples",
}
_API = ("evaluate", "export", "finetune", "load", "pretrain", "resume")

__all__ = ["VISION", "ImageReader", "create_encoder", "decode_image", "evaluate", "export"]
__all__ += ["finetune", "load", "pretrain", "resume", "write_samples"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for (PEP 562)."""
    if name in _NAMES:
        module, _, attribute = _NAMES[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if name in _API:
        return importlib.import_module("ssl_core.api").bound(_DOMAIN)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
