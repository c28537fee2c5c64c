"""Self-supervised learning for images: files, on-device views, encoders, the command.

Importing this package is cheap; torch is imported when one of its names is first used.

    import ssl_vision
    run = ssl_vision.pretrain(data="photos/", method="simclr", out="runs/photos")
    vectors = ssl_vision.load(run).embed(images)
"""

from __future__ import annotations

from ssl_core.surface import surface

__version__ = "0.1.0"

__getattr__, __all__ = surface(
    __name__,
    "ssl_vision.domain:VISION",
    {
        "ImageReader": "ssl_vision.reader:ImageReader",
        "create_encoder": "ssl_vision.encoders.create:create_encoder",
        "decode_image": "ssl_vision.decode:decode_image",
        "write_samples": "ssl_vision.samples:write_samples",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
