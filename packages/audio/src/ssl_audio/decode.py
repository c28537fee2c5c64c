"""Files, bytes and arrays to one mono wave in int16, reading no more of a file than is kept.

libsndfile (through soundfile) decodes WAV, FLAC, OGG, Opus, MP3, AIFF and others and seeks inside
them; it releases the interpreter lock. Waves stay int16 until they are on the device: half the
bytes of float32, and what most files hold anyway.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_audio.formats import missing_bytes
from ssl_core.data.limits import MAX_BYTES, with_retries
from ssl_core.errors import CorruptSample

RATES = (1_000, 768_000)
"""Samples a second outside which a header is taken to lie."""
MAX_CHANNELS = 64
SHORTEST = 0.025
"""Seconds below which no feature frame fits."""


class Wave(NamedTuple):
    """One decoded recording: int16 `[T]` and its samples a second."""

    data: Tensor
    rate: int


@dataclass(frozen=True)
class Window:
    """The part of a recording from `start` to `stop` (in samples at its own rate)."""

    payload: Any
    start: int
    stop: int


def decode_audio(
    source: Any, *, max_seconds: float = 10.0, max_bytes: int = MAX_BYTES, rate: int | None = None
) -> Wave:
    """One channel of int16 samples, the mean of all channels.

    `source` is a path, encoded bytes, a `Window` of either, an array of samples (`[T]`, `[C, T]`
    or `[T, C]`, the longer axis being time; integers or floats in -1..1, at `rate` samples a
    second), or a mapping with "array" and "sampling_rate", or "bytes" or "path", as Hugging Face
    data sets hold. Of a longer recording the middle `max_seconds` are read, and only these.
    Raises `CorruptSample` with the reason when it is no audio, is cut short, holds numbers that
    are not finite, or lasts less than `SHORTEST` seconds.
    """
    if isinstance(source, Window):
        return _decode(source.payload, (source.start, source.stop), max_seconds, max_bytes, rate)
    return _decode(source, None, max_seconds, max_bytes, rate)


def duration(source: Any, *, max_bytes: int = MAX_BYTES) -> tuple[int, int]:
    """(samples, samples a second) that a file's or its bytes' header states."""
    with _Opened(source, max_bytes) as file:
        return int(file.frames), int(file.samplerate)


def _decode(
    source: Any,
    part: tuple[int, int] | None,
    max_seconds: float,
    max_bytes: int,
    rate: int | None,
) -> Wave:
    if isinstance(source, Mapping):
        if source.get("array") is not None:
            rate = int(source.get("sampling_rate", rate or 0))
            source = source["array"]
        else:
            source = source.get("bytes") or source.get("path")
    if isinstance(source, Tensor):
        source = source.numpy(force=True)
    if isinstance(source, np.ndarray):
        return _from_array(source, part, max_seconds, rate)
    with _Opened(source, max_bytes) as file:
        start, stop = _span(file.frames, file.samplerate, part, max_seconds)
        # 16-bit files as they are; all others through float, which rounds instead of truncating.
        kind = "int16" if file.subtype == "PCM_16" else "float32"
        try:
            if start:
                file.seek(start)
            samples = file.read(stop - start, dtype=kind, always_2d=True)
        except (RuntimeError, ValueError) as error:
            raise CorruptSample(f"damaged: {_reason(error)}") from error
        if len(samples) < stop - start:
            raise CorruptSample(
                f"truncated: {start + len(samples)} of {file.frames} samples could be read"
            )
        return Wave(torch.from_numpy(_mono(samples)), int(file.samplerate))


def _from_array(
    array: np.ndarray, part: tuple[int, int] | None, max_seconds: float, rate: int | None
) -> Wave:
    if not rate:
        raise CorruptSample("an array of samples without a rate; give data.options.array_rate")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise CorruptSample(f"an array of shape {array.shape} is no [time] nor [channels, time]")
    if array.shape[0] < array.shape[1]:
        array = array.T
    start, stop = _span(len(array), rate, part, max_seconds)
    array = array[start:stop]
    if array.dtype == np.uint8:
        array = (array.astype(np.float32) - 128) / 128
    elif np.issubdtype(array.dtype, np.signedinteger) and array.dtype != np.int16:
        array = array.astype(np.float64) / -float(np.iinfo(array.dtype).min)
    elif not np.issubdtype(array.dtype, np.floating) and array.dtype != np.int16:
        raise CorruptSample(f"an array of {array.dtype} holds no samples")
    return Wave(torch.from_numpy(_mono(np.ascontiguousarray(array))), rate)


def _span(
    frames: int, rate: int, part: tuple[int, int] | None, max_seconds: float
) -> tuple[int, int]:
    """First and last sample to read: the part, and of it the middle `max_seconds`."""
    if not RATES[0] <= rate <= RATES[1]:
        raise CorruptSample(f"{rate} samples a second lie outside {RATES[0]} to {RATES[1]}")
    start, stop = (0, frames) if part is None else (part[0], min(part[1], frames))
    if stop - start < SHORTEST * rate:
        raise CorruptSample(
            f"{max(stop - start, 0)} samples at {rate} Hz are shorter than {SHORTEST} s"
        )
    surplus = stop - start - max(1, round(max_seconds * rate))
    if surplus > 0:
        start += surplus // 2
        stop = start + max(1, round(max_seconds * rate))
    return start, stop


def _mono(samples: np.ndarray) -> np.ndarray:
    """`[T, C]` int16 or float to int16 `[T]`; a float recording beyond full scale is scaled."""
    if samples.dtype == np.int16:
        if samples.shape[1] == 1:
            return samples[:, 0].copy()
        mean: np.ndarray = np.rint(samples.mean(1, dtype=np.float32)).astype(np.int16)
        return mean
    wave = samples.mean(1, dtype=np.float32)
    peak = float(np.abs(wave).max(initial=0.0))
    if not np.isfinite(peak):
        raise CorruptSample("not all samples are finite")
    full = 32767 / max(peak, 1.0)
    scaled: np.ndarray = np.rint(wave * full).astype(np.int16)
    return scaled


class _Opened:
    """An open `soundfile.SoundFile` of a path or of bytes, with `CorruptSample` for no audio."""

    def __init__(self, source: Any, max_bytes: int) -> None:
        self.source, self.max_bytes = source, max_bytes

    def __enter__(self) -> Any:
        import soundfile

        self.stream = self._stream()
        try:
            cut = missing_bytes(self.stream)
            if cut is not None:
                raise CorruptSample(f"truncated: {cut[0]} of {cut[1]} bytes of samples are there")
            self.stream.seek(0)
            self.file = soundfile.SoundFile(self.stream)
            if self.file.channels > MAX_CHANNELS:
                raise CorruptSample(f"{self.file.channels} channels exceed {MAX_CHANNELS}")
        except (RuntimeError, ValueError, TypeError) as error:
            self.stream.close()
            raise CorruptSample(f"not an audio file: {_reason(error)}") from error
        except CorruptSample:
            self.stream.close()
            raise
        return self.file

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.stream.close()

    def _stream(self) -> BinaryIO:
        source = self.source
        if isinstance(source, (bytes, bytearray, memoryview)):
            if len(source) > self.max_bytes:
                raise CorruptSample(f"{len(source)} bytes exceed the cap of {self.max_bytes}")
            if len(source) == 0:
                raise CorruptSample("empty")
            return io.BytesIO(source)
        if not isinstance(source, (str, os.PathLike)):
            raise CorruptSample(f"neither a file, bytes nor samples, but {type(source).__name__}")
        path = os.fspath(source)
        try:
            # A file of any length: only what is kept of it is read.
            stream = with_retries(partial(Path(path).open, "rb"))
        except OSError as error:
            raise CorruptSample(f"cannot be read: {error.strerror or error}") from error
        if os.fstat(stream.fileno()).st_size == 0:
            stream.close()
            raise CorruptSample("empty")
        return stream


def _reason(error: BaseException) -> str:
    """libsndfile's words without the object's address."""
    return str(error).rpartition(">: ")[2].strip().rstrip(".") or type(error).__name__
