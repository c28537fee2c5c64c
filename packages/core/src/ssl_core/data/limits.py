"""Reading with a cap and with patience: no record may fill the memory, no hiccup end a run."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

from ssl_core.batch import Record
from ssl_core.errors import CorruptSample

T = TypeVar("T")

MAX_BYTES = 256 * 1024**2
"""Largest encoded record read by default: 256 MiB."""

_TRANSIENT_NAMES = (
    *("EAGAIN", "EBUSY", "EINTR", "EIO", "EMFILE", "ENFILE", "ENOBUFS", "EREMOTEIO", "ESTALE"),
    *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH"),
    *("ENETDOWN", "ENETRESET", "ENETUNREACH", "ETIMEDOUT"),
)
# Not every system has every number.
_TRANSIENT = {getattr(errno, name) for name in _TRANSIENT_NAMES if hasattr(errno, name)}

_PAUSES = (0.05, 0.2, 0.8)
"""Seconds before the second, third and fourth attempt."""


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: a busy disk or network, not a missing file."""
    return isinstance(error, TimeoutError) or (
        isinstance(error, OSError) and error.errno in _TRANSIENT
    )


def with_retries(work: Callable[[], T]) -> T:
    """`work()`, tried again up to three times after a transient `OSError`, with back-off."""
    for pause in _PAUSES:
        try:
            return work()
        except OSError as error:
            if not is_transient(error):
                raise
            time.sleep(pause)
    return work()


def read_capped(path: str | os.PathLike[str], cap: int) -> bytes:
    """The file's bytes, or `cap` + 1 of them where it holds more; `OSError` as `open` has it."""
    with open(path, "rb") as file:
        # Room for all of the cap takes several times as long as reading a small file.
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(size, cap) + 1)
        if len(data) > size:  # a pipe, or a file that grows
            data += file.read(cap + 1 - len(data))
        return data


def read_bytes(record: Record, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The record's bytes, from memory or from the file its payload names.

    Raises `CorruptSample` when they are more than `max_bytes`, or cannot be read.
    """
    payload = record.payload
    if isinstance(payload, (bytes, bytearray, memoryview)):
        if len(payload) > max_bytes:
            raise CorruptSample(f"{len(payload)} bytes, more than the cap of {max_bytes}")
        return bytes(payload)
    if not isinstance(payload, (str, os.PathLike)):
        raise CorruptSample(f"neither a file nor bytes, but {type(payload).__name__}")
    path: str = os.fspath(payload)
    try:
        data = with_retries(lambda: read_capped(path, max_bytes))
    except OSError as error:
        raise CorruptSample(f"cannot be read: {error.strerror or error}") from error
    if len(data) > max_bytes:
        raise CorruptSample(f"more than the cap of {max_bytes} bytes")
    return data
