"""What encoders read from a reader's facts about the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.errors import UserError


def channels_of(spec: Mapping[str, Any]) -> int:
    """Input channels of images with these facts."""
    channels = int(spec.get("channels", 3))
    if channels < 1:
        raise UserError(f"spec channels: {channels} is not a number of image channels")
    return channels


def size_of(spec: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width that encoders will see: `view_size` where views set one, else `size`."""
    size = spec.get("view_size", spec.get("size", 224))
    if isinstance(size, (list, tuple)):
        height, width = (int(side) for side in size)
        return height, width
    return int(size), int(size)
