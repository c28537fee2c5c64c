"""`open_video`: the right backend for what a record holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ssl_core.errors import CorruptSample, UserError
from ssl_video.files.stills import ArrayVideo, FolderVideo, GIFVideo, array_file
from ssl_video.files.video import Video

Backend = Literal["auto", "decord", "pyav"]
BACKENDS = ("auto", "decord", "pyav")


@contextmanager
def open_video(payload: Any, *, backend: Backend = "auto") -> Iterator[Video]:
    """A video open for the length of a `with` block.

    `payload` is a path (file or folder of pictures), bytes of a file, or an array or tensor
    `[T, H, W(, C)]`. `backend` decodes compressed files: "pyav", "decord", or "auto": PyAV, which
    is the faster (docs/video.md). Raises `CorruptSample` for what cannot be read.
    """
    video = _opened(payload, backend)
    try:
        if len(video) == 0:
            raise CorruptSample("has no frames")
        yield video
    finally:
        video.close()


def _opened(payload: Any, backend: Backend) -> Video:
    if isinstance(payload, (np.ndarray, Tensor)):
        return ArrayVideo(payload)
    if isinstance(payload, (bytes, bytearray, memoryview)):
        payload = bytes(payload)
        if payload[:6] in (b"GIF87a", b"GIF89a"):
            return GIFVideo(payload)
        return compressed(payload, backend)
    path = os.fspath(payload)
    if os.path.isdir(path):
        return FolderVideo(path)
    if not os.path.exists(path):
        raise CorruptSample("does not exist")
    if os.path.getsize(path) == 0:
        raise CorruptSample("is an empty file")
    lower = path.lower()
    if lower.endswith(".npy"):
        return array_file(path)
    return GIFVideo(path) if lower.endswith(".gif") else compressed(path, backend)


def compressed(payload: str | bytes, backend: Backend) -> Video:
    """An encoded file in the backend asked for."""
    if backend not in BACKENDS:
        raise UserError(f"data.options.backend: {backend!r}; choose one of {', '.join(BACKENDS)}")
    if not payload:
        raise CorruptSample("is an empty file")
    if backend != "decord":
        from ssl_video.files.pyav import PyAVVideo

        return PyAVVideo(payload)
    if not has_decord():
        raise UserError(
            "data.options.backend=decord: decord cannot be imported here; install decord2, or "
            "leave the backend at auto"
        )
    from ssl_video.files.decord import DecordVideo

    return DecordVideo(payload)


def has_decord() -> bool:
    """Whether decord (decord2) can be imported here."""
    try:
        import decord  # noqa: F401
    except (ImportError, OSError):
        return False
    return True
