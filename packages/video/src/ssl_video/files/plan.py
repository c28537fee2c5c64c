"""Which frames of a video to decode: chosen from its length and a key, before any decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_core.rng import generator


def looped(start: int, stride: int, count: int, total: int) -> np.ndarray:
    """`count` frame numbers from `start` in steps of `stride`, int64.

    A video that ends too early begins anew at frame 0 when the next number would pass its end, as
    in Pace (Wang et al. 2020): the restart is at the beginning, not at `start`.
    """
    first = np.arange(start, total, stride)
    again = np.arange(0, total, stride)
    rounds = max(0, -(-(count - len(first)) // len(again)))
    return np.concatenate([first, np.tile(again, rounds)])[:count]


def windows(
    total: int, *, count: int, stride: int, number: int = 1, key: int | None = None
) -> np.ndarray:
    """The stored windows of a video: `number` times `count` frame numbers `stride` apart.

    With a key each window's start is drawn evenly from all that fit, alone. Without one they are
    spread from the first to the last that fits, a single one in the middle.
    """
    room = max(0, total - ((count - 1) * stride + 1))
    if key is not None:
        begin = generator("clip start", key).integers(0, room + 1, number)
    else:
        begin = np.array(spread(room, number))
    return np.concatenate([looped(int(start), stride, count, total) for start in begin])


def spread(room: int, number: int) -> list[int]:
    """`number` starts evenly from 0 to `room`; a single one in the middle."""
    if number == 1:
        return [room // 2]
    return [round(room * n / (number - 1)) for n in range(number)]


def segment(times: np.ndarray, meta: Mapping[str, Any]) -> tuple[int, int]:
    """First and last frame (exclusive) between `start` and `end`, in seconds, of a manifest row.

    Raises `CorruptSample` for a segment that holds no frame.
    """
    start, end = _seconds(meta, "start", 0.0), _seconds(meta, "end", np.inf)
    first = int(np.searchsorted(times, start - 1e-6))
    last = int(np.searchsorted(times, end - 1e-6))
    if first >= last:
        raise CorruptSample(f"no frame lies between {start:g} s and {end:g} s")
    return first, last


def _seconds(meta: Mapping[str, Any], name: str, default: float) -> float:
    value = meta.get(name)
    if value is None or value == "":
        return default
    try:
        return float(value)
    except (TypeError, ValueError):
        raise CorruptSample(f"{name} {value!r} is not a number of seconds") from None
