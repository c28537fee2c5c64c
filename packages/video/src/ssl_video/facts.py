"""What `ssl-video inspect` tells of files: containers' streams, rates, durations, sound."""

from __future__ import annotations

import io
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssl_core.batch import Decoded, Source
from ssl_core.errors import CorruptSample
from ssl_video.files.open import open_video
from ssl_video.files.video import frame_rate


@dataclass(frozen=True)
class Facts:
    """One video, without decoding a frame."""

    frames: int
    fps: float
    stated: float | None
    """Seconds the container claims; None where it claims nothing."""
    codec: str
    sound: bool

    @property
    def seconds(self) -> float:
        """How long the frames last."""
        return self.frames / self.fps if self.fps else 0.0

    @property
    def misstated(self) -> bool:
        """Whether the container claims a duration that its frames do not have."""
        if self.stated is None:
            return False
        return abs(self.stated - self.seconds) > 0.1 * self.seconds + 0.2


def facts_of(payload: Any) -> Facts:
    """Walks the packets of one video; raises `CorruptSample` for what cannot be read."""
    if isinstance(payload, Decoded):  # packed clips: their files' rates and sound are not kept
        return Facts(len(payload.sample), 0.0, None, "packed frames", False)
    path = isinstance(payload, (str, os.PathLike)) and not os.path.isdir(payload)
    encoded = path or isinstance(payload, bytes)
    with open_video(payload, backend="pyav") as video:
        frames, fps = len(video), frame_rate(video)
    if not encoded or (path and str(payload).lower().endswith((".gif", ".npy"))):
        return Facts(frames, fps, None, "pictures", False)
    return Facts(frames, fps, *_container(payload))


def _container(payload: Any) -> tuple[float | None, str, bool]:
    import av
    from av.error import FFmpegError

    try:
        with av.open(io.BytesIO(payload) if isinstance(payload, bytes) else str(payload)) as file:
            stream = file.streams.video[0]
            stated = None
            if stream.duration is not None and stream.time_base is not None:
                stated = float(stream.duration * stream.time_base)
            elif file.duration is not None:
                stated = file.duration / av.time_base
            return stated, stream.codec_context.name, bool(file.streams.audio)
    except (FFmpegError, OSError, IndexError) as error:
        raise CorruptSample(f"cannot be opened ({error})") from error


def video_facts(source: Source, rows: Sequence[int]) -> dict[str, Any]:
    """Ranges and counts over the readable videos among `rows`."""
    found: list[Facts] = []
    for row in rows:
        try:
            found.append(facts_of(source[row].payload))
        except (CorruptSample, OSError):
            continue  # decoding names it
    if not found:
        return {}
    timed = [f for f in found if f.fps]  # a single frame has no rate
    return {
        **({"seconds": _spread([f.seconds for f in timed])} if timed else {}),
        "frames": _spread([float(f.frames) for f in found]),
        **({"fps": _spread([f.fps for f in timed])} if timed else {}),
        "codecs": dict(Counter(f.codec for f in found).most_common()),
        "with sound": sum(f.sound for f in found),
        "wrong duration stated": sum(f.misstated for f in found),
    }


def _spread(values: Sequence[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}, median {middle:g}"
