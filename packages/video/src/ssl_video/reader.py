"""From video records to batches: one window of frames a video, one size, bounded resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Record, Source
from ssl_core.data.reading import (
    Options,
    load_facts,
    look_at_some,
    one_of,
    save_facts,
    whole_number,
)
from ssl_core.ops.pixels import Ragged
from ssl_video.clips import evenly, frames_of, square
from ssl_video.files.open import BACKENDS, Backend, open_video
from ssl_video.files.plan import segment, windows
from ssl_video.files.video import frame_rate
from ssl_video.measure import Measured, measure

_RAW_SIDE, _RAW_FRAMES = 16, 8


@dataclass(frozen=True)
class ReaderOptions(Options):
    """What `data.options` of a recipe may set.

    `window` is the number of frames stored of a video, `stride` apart (None: all frames of short
    videos, 64 of longer ones). `max_side` bounds the stored resolution: a longer *shorter side*
    is scaled down to it, with antialias. `size` is the side of the square views (None: from the
    data). `backend` decodes compressed files. `clips` is how many windows of a video longer than
    one are drawn for a training sample, each alone: clips of rho-BYOL lie anywhere in a video, and
    only their frames are decoded. `test_clips` is how many clips evaluation looks at, spread evenly
    over the video, their features averaged.
    """

    window: int | None = None
    stride: int = 1
    max_side: int = 256
    size: int | None = None
    backend: Backend = "auto"
    normalize: Literal["measured", "imagenet"] = "measured"
    clips: int = 1
    test_clips: int = 1
    measure: int = 64
    """Records looked at to find lengths, sizes, mean and std."""

    def __post_init__(self) -> None:
        for name, low in (
            ("stride", 1),
            ("max_side", 8),
            ("clips", 1),
            ("test_clips", 1),
            ("measure", 1),
        ):
            whole_number(name, getattr(self, name), low)
        for name, low in (("window", 1), ("size", 8)):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), low)
        one_of("backend", self.backend, BACKENDS)
        one_of("normalize", self.normalize, ("measured", "imagenet"))


class VideoReader:
    """`ssl_core.batch.Reader` for videos.

    A sample is a window uint8 `[T, H, W, 3]`; a batch is `[B, T, H, W, 3]` when all sizes agree,
    else a list. Of videos longer than the window, training draws other windows for every id
    (`draws`), before anything is decoded; `decode` is the window in the middle. Several windows
    (`clips` in training, `test_clips` in evaluation) follow each other along T. Shorter videos
    begin anew. `spec` holds `channels`, `window` (T), `stride`, `fps` (median), `size` (side of
    the square views), `height` and `width` (median stored sizes), `range`, `mean` and `std` per
    channel on the 0..1 scale.
    """

    def __init__(self, spec: Mapping[str, Any], options: ReaderOptions | None = None) -> None:
        self._spec = dict(spec)
        self.options = options or ReaderOptions()
        self.draws = bool(self._spec["draws"])

    @property
    def spec(self) -> Mapping[str, Any]:
        return self._spec

    def decode(self, record: Record) -> Tensor:
        """The middle window, or several; raises `CorruptSample` with the reason."""
        return self._windows(record, self.options.test_clips if self.draws else 1, None)

    def draw(self, record: Record, key: int) -> Tensor:
        """The windows that `key` picks."""
        return self._windows(record, self.options.clips, key)

    def _windows(self, record: Record, number: int, key: int | None) -> Tensor:
        count, stride = self._spec["window"], self._spec["stride"]
        with open_video(record.payload, backend=self.options.backend) as video:
            first, last = 0, len(video)
            if "start" in record.meta or "end" in record.meta:
                first, last = segment(video.times, record.meta)
            numbers = first + windows(
                last - first, count=count, stride=stride, number=number, key=key
            )
            pixels = video.frames(numbers)
        return stored(pixels, self.options.max_side)

    def collate(self, samples: Sequence[Tensor]) -> Tensor | Ragged:
        """`[B, T, H, W, 3]` or, when sizes differ, a list."""
        if len({sample.shape for sample in samples}) == 1:
            return torch.stack(list(samples))
        return list(samples)

    def raw(self, data: Tensor | Ragged) -> Tensor:
        """Normalised pixels of up to 8 frames of the centre square, at most 16 x 16: `[B, R]`."""
        side = min(_RAW_SIDE, self._spec["size"])
        count = min(_RAW_FRAMES, self._spec["window"])
        pixels = square(frames_of(data, evenly(data, count)), side, self._spec)
        mean = pixels.new_tensor(self._spec["mean"])[:, None, None]
        std = pixels.new_tensor(self._spec["std"])[:, None, None]
        return ((pixels - mean) / std).reshape(len(data), -1)

    def save(self, folder: Path) -> None:
        """Writes `reader.json`."""
        save_facts(folder, self._spec, self.options)

    @classmethod
    def load(cls, folder: Path) -> VideoReader:
        """The reader that `save` wrote."""
        spec, options = load_facts(folder, what="video")
        return cls(spec, ReaderOptions(**options))

    @classmethod
    def fit(cls, source: Source, options: ReaderOptions | None = None) -> VideoReader:
        """A reader for this source, from a keyed sample of its records.

        Unreadable records are passed over (the loader reports them). Raises `UserError` when none
        can be read.
        """
        chosen = options or ReaderOptions()
        found = look_at_some(source, chosen.measure, lambda r: looked_at(r, chosen), what="video")
        spec = measure(
            found,
            count=chosen.window,
            stride=chosen.stride,
            size=chosen.size,
            normalize=chosen.normalize,
        )
        return cls(spec | {"test_clips": chosen.test_clips}, chosen)


def looked_at(record: Record, options: ReaderOptions) -> Measured:
    """What one video says about the data: its length and rate, and a few of its frames."""
    with open_video(record.payload, backend=options.backend) as video:
        first, last = 0, len(video)
        if "start" in record.meta or "end" in record.meta:
            first, last = segment(video.times, record.meta)
        numbers = np.unique(np.linspace(first, last - 1, 4).round().astype(np.int64))
        pixels = video.frames(numbers)
        return Measured(last - first, frame_rate(video), stored(pixels, options.max_side))


def stored(pixels: np.ndarray, max_side: int) -> Tensor:
    """Frames uint8 `[T, H, W, 3]`, scaled so that the shorter side is at most `max_side`."""
    frames = torch.from_numpy(pixels)
    height, width = frames.shape[1:3]
    scale = max_side / min(height, width)
    if scale >= 1:
        return frames
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    # One frame at a time: torch's fast kernel for bytes takes channels-last images.
    scaled = [
        torch.nn.functional.interpolate(
            frame.permute(2, 0, 1)[None], size=size, mode="bilinear", antialias=True
        )[0].permute(1, 2, 0)
        for frame in frames
    ]
    return torch.stack(scaled)
