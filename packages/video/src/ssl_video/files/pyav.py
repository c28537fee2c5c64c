"""Video files by PyAV: the second backend, on every platform, with a bundled FFmpeg."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample


class PyAVVideo:
    """A file (path or bytes) open in PyAV; frames are found by their time stamps.

    The packets are walked once, without decoding, for the time stamps of all frames and of the
    key frames. Wanted frames are then decoded from the nearest key frame before them. Of the frames
    on the way only those that others refer to are decoded, which changes no pixel of the wanted
    ones and leaves out most B-frames.
    """

    def __init__(self, payload: str | bytes) -> None:
        import av

        source: Any = io.BytesIO(payload) if isinstance(payload, bytes) else payload
        with _as_corrupt():
            self._container: Any = av.open(source)
        try:
            self._index()
        except BaseException:
            self.close()
            raise

    def _index(self) -> None:
        with _as_corrupt():
            if not self._container.streams.video:
                raise CorruptSample("has no video stream")
            self._stream = self._container.streams.video[0]
            self._stream.thread_count = 1
            stamps, keys = [], []
            for packet in self._container.demux(self._stream):
                if packet.pts is not None and packet.size and not packet.is_discard:
                    stamps.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
        if not stamps:
            raise CorruptSample("has no frames")
        self._stamps = np.unique(np.asarray(stamps, np.int64))
        self._keys = np.asarray(sorted(keys), np.int64)
        # Even a video whose index is broken starts with what decodes on its own.
        if not len(self._keys) or self._keys[0] > self._stamps[0]:
            self._keys = np.concatenate([self._stamps[:1], self._keys])

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def times(self) -> np.ndarray:
        seconds = (self._stamps - self._stamps[0]) * float(self._stream.time_base)
        return np.asarray(seconds, np.float64)

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        wanted = {int(self._stamps[number]): None for number in np.unique(numbers)}
        found: dict[int, np.ndarray] = {}
        with _as_corrupt():
            for first, last in self._runs(sorted(wanted)):
                self._decode(first, last, wanted, found)
        missing = len(wanted) - len(found)
        if missing:
            raise CorruptSample(
                f"cannot be decoded ({missing} of {len(wanted)} frames are missing)"
            )
        return np.stack([found[int(self._stamps[number])] for number in numbers])

    def _runs(self, stamps: list[int]) -> list[tuple[int, int]]:
        """(first, last) stamps to decode at a stretch; a new one where a key frame lies between."""
        runs: list[tuple[int, int]] = []
        for stamp in stamps:
            if runs and self._key_before(stamp) <= runs[-1][1]:
                runs[-1] = (runs[-1][0], stamp)
            else:
                runs.append((stamp, stamp))
        return runs

    def _key_before(self, stamp: int) -> int:
        at = int(np.searchsorted(self._keys, stamp, side="right")) - 1
        return int(self._keys[max(at, 0)])

    def _decode(
        self, first: int, last: int, wanted: dict[int, None], found: dict[int, np.ndarray]
    ) -> None:
        """The wanted frames from stamp `first` to `last`, into `found`."""
        self._container.seek(self._key_before(first), stream=self._stream, backward=True)
        context = self._stream.codec_context
        left = {stamp for stamp in wanted if first <= stamp <= last}
        try:
            for packet in self._container.demux(self._stream):
                # One thread decodes a packet as it is sent, so the setting is this packet's.
                kept = packet.pts is None or packet.pts in left
                context.skip_frame = "DEFAULT" if kept else "NONREF"
                self._take(packet.decode(), wanted, found)
                left.discard(packet.pts)
                if not left:
                    # What is wanted has been sent: the decoder hands it out without more packets.
                    # (At the file's end `demux` has sent an empty packet, which flushed it.)
                    if packet.size:
                        self._take(context.decode(None), wanted, found)
                    return
        finally:
            context.skip_frame = "DEFAULT"

    @staticmethod
    def _take(frames: list[Any], wanted: dict[int, None], found: dict[int, np.ndarray]) -> None:
        for frame in frames:
            if frame.pts in wanted and frame.pts not in found:
                found[frame.pts] = _upright(frame)

    def close(self) -> None:
        self._container.close()


def _upright(frame: Any) -> np.ndarray:
    """RGB pixels, turned as the file's display matrix says (counter-clockwise degrees)."""
    # Left to itself FFmpeg starts a thread a core for every frame's conversion, and lets them go:
    # ten times the cost of the conversion, for the same pixels.
    pixels: np.ndarray = frame.to_ndarray(format="rgb24", threads=1)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


@contextlib.contextmanager
def _as_corrupt() -> Any:
    from av.error import FFmpegError

    try:
        yield
    except (FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        raise CorruptSample(f"cannot be decoded ({error})") from error
