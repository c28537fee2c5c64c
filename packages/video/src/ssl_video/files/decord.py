"""Video files by decord (its maintained fork decord2), the second backend."""

from __future__ import annotations

import contextlib
import io
from contextlib import closing
from typing import Any

import numpy as np

from ssl_core.errors import CorruptSample
from ssl_video.files.pyav import PyAVVideo


class DecordVideo:
    """A file (path or bytes) open in decord, with one decoding thread.

    One thread a reader: the loader's workers are the parallelism, and frames decoded ahead on
    more threads would be thrown away with the reader.

    decord 3.4 cannot hand over frames of some widths (48, 96, 144...: where FFmpeg pads rows to a
    length that is again whole pixels). Those frames come from PyAV, whose pixels are the same.
    """

    def __init__(self, payload: str | bytes) -> None:
        import decord

        # Its FFmpeg would write about damage to the terminal; what it says is raised instead.
        decord.logging.set_level(decord.logging.QUIET)
        self._payload = payload
        source: Any = io.BytesIO(payload) if isinstance(payload, bytes) else payload
        with _as_corrupt():
            self._reader: Any = decord.VideoReader(source, num_threads=1)
        self._times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def times(self) -> np.ndarray:
        if self._times is None:
            with _as_corrupt():
                shown = self._reader.get_frame_timestamp(range(len(self)))[:, 0]
            self._times = np.asarray(shown, np.float64) - float(shown[0])
        return self._times

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        distinct, back = np.unique(numbers, return_inverse=True)
        try:
            with _as_corrupt():
                found: np.ndarray = self._reader.get_batch(distinct.tolist()).asnumpy()
        except CorruptSample as error:
            if "from_size == to_size" not in str(error):
                raise
            with closing(PyAVVideo(self._payload)) as other:
                found = other.frames(distinct)
        in_order = len(distinct) == len(numbers) and bool((back[1:] > back[:-1]).all())
        return found if in_order else found[back]

    def close(self) -> None:
        self._reader = None


@contextlib.contextmanager
def _as_corrupt() -> Any:
    """decord's errors carry a stack trace of its C++ side; the line that says what is kept."""
    try:
        yield
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = next((line for line in lines if "rror" in line), lines[0] if lines else "no reason")
        said = said.rpartition("Thread worker: ")[2]  # before it stands where in decord's source
        raise CorruptSample(f"cannot be decoded ({said[-160:]})") from error
