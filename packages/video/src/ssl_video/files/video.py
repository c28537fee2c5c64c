"""What every backend offers: a video as numbered frames in order of display."""

from __future__ import annotations

from typing import Protocol

import numpy as np

SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".wmv",
    ".flv",
    ".3gp",
    ".gif",
    ".npy",
)
"""File names read as videos."""


class Video(Protocol):
    """An open video. Backends give equal pixels for equal frame numbers.

    Close it as soon as its frames are out: an open decord reader decodes ahead in a thread of its
    own and keeps the rest of the file in memory.
    """

    def __len__(self) -> int:
        """The number of frames."""

    @property
    def times(self) -> np.ndarray:
        """When each frame is shown, in seconds from the first: float64 `[N]`, increasing."""

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        """These frames (int64 `[n]`, in any order, also repeated): uint8 `[n, H, W, 3]`.

        Upright: a rotation stored in the file is applied. Raises `CorruptSample` where a frame
        cannot be decoded.
        """

    def close(self) -> None:
        """Frees the decoder and its buffers."""


def frame_rate(video: Video) -> float:
    """Frames a second, the mean over the video; 0 for a single frame."""
    times = video.times
    span = float(times[-1] - times[0]) if len(times) > 1 else 0.0
    return (len(times) - 1) / span if span > 0 else 0.0
