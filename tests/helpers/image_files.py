"""Image files to decode, whole and damaged, for tests of the vision package."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from PIL import Image

from ssl_core.errors import CorruptSample
from ssl_vision.decode import decode_image


def smooth(height: int = 24, width: int = 37) -> np.ndarray:
    """Smooth colour, uint8 `[H, W, 3]`, no two corners alike."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 6, y * 10, (x + y) * 4], axis=2).astype(np.uint8)


def encoded(array: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    """The bytes of a file that Pillow writes."""
    stream = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(stream, kind, **options)
    return stream.getvalue()


def hwc(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def damage(data: bytes, rng: np.random.Generator, *, times: int = 40) -> None:
    """Decodes `data` with three bytes changed, so many times: an image or `CorruptSample`."""
    original = np.frombuffer(data, np.uint8)
    for _ in range(times):
        damaged = original.copy()
        places = rng.integers(3, min(len(damaged), 400), 3)
        damaged[places] = rng.integers(0, 256, 3)
        with contextlib.suppress(CorruptSample):
            assert decode_image(damaged.tobytes(), max_pixels=100_000).ndim == 3
