"""What encoders read from a reader's facts about the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def clip_shape(spec: Mapping[str, Any]) -> tuple[int, int, int]:
    """Frames, height and width that encoders will see: the views' where they set them."""
    size = int(spec.get("view_size", spec.get("size", 112)))
    frames = int(spec.get("view_frames", min(16, int(spec.get("window", 16)))))
    return frames, size, size
