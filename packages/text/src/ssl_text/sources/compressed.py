"""Compressed text: unpacked once, by streaming, so that any document can be read alone.

Neither gzip nor Zstandard can be read from the middle. The plain text is kept in the cache folder
(`$SSL_CACHE`, else the user's cache folder) under a name made from the file's place, size and time
of change, and is written whole or not at all.
"""

from __future__ import annotations

import gzip
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ssl_core.data.heads import digest
from ssl_core.errors import UserError
from ssl_core.files import atomic_path, cache_folder

PACKED = (".gz", ".zst")
_CHUNK = 1 << 20


def with_packed(suffixes: Sequence[str]) -> tuple[str, ...]:
    """The suffixes themselves, and each with the ending of a compressed file."""
    return tuple(suffix + end for suffix in suffixes for end in ("", *PACKED))


def bare(name: str) -> str:
    """A file's name without the ending that tells of its compression."""
    end = next((end for end in PACKED if name.lower().endswith(end)), "")
    return name[: len(name) - len(end)]


def made_once(path: Path, what: str, suffix: str) -> Path:
    """Where a file made from `path` is kept: another place when `path` changes."""
    state = path.stat()
    key = digest([path.resolve(), state.st_size, state.st_mtime_ns])
    return cache_folder() / "text" / what / f"{key}{suffix}"


def plain(path: Path) -> Path:
    """A file with the plain content of `path`, which is `path` itself unless it is compressed.

    Raises `UserError` for a file that is damaged or cut off, and where there is no room.
    """
    inner = Path(bare(path.name))
    if inner.name == path.name:
        return path
    place = made_once(path, "plain", inner.suffix)
    if place.is_file():
        return place
    try:
        with atomic_path(place) as temporary, temporary.open("wb") as out, _opened(path) as packed:
            shutil.copyfileobj(packed, out, _CHUNK)
    except (EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(
                f"data: {path} cannot be unpacked into {place.parent}: {error.strerror}; "
                "set SSL_CACHE to a folder with room"
            ) from error
        raise UserError(
            f"data: {path} is damaged or cut off ({error}); fetch it again, or unpack what is "
            "whole of it by hand"
        ) from error
    return place


def _opened(path: Path) -> IO[bytes] | Any:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rb")
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(
            f"data: reading {path} needs pyarrow; pip install 'ssl-core[table]'"
        ) from error
    return pyarrow.input_stream(str(path), compression="zstd")
