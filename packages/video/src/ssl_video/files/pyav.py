"""Video files by PyAV, the faster backend, on every platform with a bundled FFmpeg."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample

_PROBE = {"skip_frame": "all"}
"""While opening, FFmpeg decodes some frames to learn what a stream is like. What it learns there is
not used here, and two thirds of the time it takes to open a file are saved by leaving it out."""


class PyAVVideo:
    """A file (path or bytes) open in PyAV; frames are found by their time stamps.

    The packets are walked once, without decoding, for the time stamps of all frames and of the
    key frames. Wanted frames are then decoded from the nearest key frame before them. Of the frames
    on the way only those that others refer to are decoded, which changes no pixel of the wanted
    ones and leaves out most B-frames.
    """

    def __init__(self, payload: str | bytes) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        source: Any = io.BytesIO(payload) if isinstance(payload, bytes) else payload
        with _as_corrupt("is cut off, damaged or no video"):
            self._container: Any = av.open(source, options=_PROBE)
        # One for all frames: it keeps its tables of the conversion to RGB.
        self._convert = VideoReformatter()
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
        distinct, back = np.unique(numbers, return_inverse=True)
        found = Found(self._stamps[distinct].tolist(), self._convert)
        with _as_corrupt():
            for first, last in self._runs(found.stamps):
                self._decode(first, last, found)
        pixels = found.pixels()
        in_order = len(distinct) == len(numbers) and bool((back[1:] > back[:-1]).all())
        return pixels if in_order else pixels[back]

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

    def _decode(self, first: int, last: int, found: Found) -> None:
        """The wanted frames from stamp `first` to `last`, into `found`."""
        key = self._key_before(first)
        self._container.seek(key, stream=self._stream, backward=True)
        context = self._stream.codec_context
        left = {stamp for stamp in found.stamps if first <= stamp <= last}
        try:
            for packet in self._container.demux(self._stream):
                # One thread decodes a packet as it is sent, so the setting is this packet's.
                kept = packet.pts is None or packet.pts in left
                context.skip_frame = "DEFAULT" if kept else "NONREF"
                found.take(packet.decode(), key)
                left.discard(packet.pts)
                if not left:
                    # What is wanted has been sent: the decoder hands it out without more packets.
                    # (At the file's end `demux` has sent an empty packet, which flushed it.)
                    if packet.size:
                        found.take(context.decode(None), key)
                    return
        finally:
            context.skip_frame = "DEFAULT"

    def close(self) -> None:
        self._container.close()


class Found:
    """The frames of these time stamps as they leave the decoder, in one array in their order."""

    def __init__(self, stamps: list[int], convert: Any) -> None:
        self.stamps = stamps
        self._rows = {stamp: row for row, stamp in enumerate(stamps)}
        self._convert = convert
        self._pixels: np.ndarray | None = None

    def take(self, frames: list[Any], key: int) -> None:
        """Keeps those that are wanted and not yet there.

        Raises `CorruptSample` for a frame that the decoder mended (it guesses what damaged bits
        held), also one on the way: others may be made from it. Frames shown before the stamp `key`,
        where decoding began, may lack what they refer to without being damaged.
        """
        for frame in frames:
            if frame.is_corrupt and frame.pts is not None and frame.pts >= key:
                raise CorruptSample("holds damaged frames")
            row = self._rows.pop(frame.pts, None)
            if row is None:
                continue
            image = self._upright(frame)
            if self._pixels is None:
                self._pixels = np.empty((len(self.stamps), *image.shape), np.uint8)
            if image.shape != self._pixels.shape[1:]:
                raise CorruptSample("changes its frames' size on the way")
            self._pixels[row] = image

    def _upright(self, frame: Any) -> np.ndarray:
        """RGB pixels, turned as the file's display matrix says (counter-clockwise degrees)."""
        # Left to itself FFmpeg starts a thread a core for every frame's conversion, and lets them
        # go: ten times the cost of the conversion, for the same pixels.
        plane = self._convert.reformat(frame, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        pixels = rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
        turns = round(frame.rotation / 90) % 4
        return np.rot90(pixels, turns) if turns else pixels

    def pixels(self) -> np.ndarray:
        """uint8 `[n, H, W, 3]`; raises `CorruptSample` when a frame did not come."""
        if self._rows or self._pixels is None:
            missing, wanted = len(self._rows), len(self.stamps)
            raise CorruptSample(f"cannot be decoded ({missing} of {wanted} frames are missing)")
        return self._pixels


@contextlib.contextmanager
def _as_corrupt(what: str = "cannot be decoded") -> Any:
    from av.error import FFmpegError

    try:
        yield
    except (FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        # FFmpeg's own words, without its number and the path, which whoever reports it knows.
        said = getattr(error, "strerror", None) or error
        raise CorruptSample(f"{what} ({said})") from error
