"""Files that are either whole or absent: written to a temporary name, synced, renamed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Where embedded data and indices are kept: $SSL_CACHE, or the user's cache folder."""
    if "SSL_CACHE" in os.environ:
        return Path(os.environ["SSL_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ssl"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there replaces `path` on leaving.

    For writers that want a file name (safetensors, torch.save). The folder is made if missing.
    After an exception the temporary file is removed and `path` is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, because some writers choose the format by it.
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    temporary.touch()
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)  # some writers make private files; the user's umask decides
        sync(temporary)
        os.replace(temporary, target)
        sync_directory(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder that becomes `path` on leaving; for data several processes may want.

    If `path` appeared meanwhile (another process was faster), that one stays.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes bytes or UTF-8 text; a reader sees the old content or the new, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | os.PathLike[str], obj: Any, *, indent: int | None = 2) -> None:
    """Writes `obj` as JSON, atomically; see `plain` for what is accepted."""
    atomic_write(path, to_json(obj, indent=indent) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def to_json(obj: Any, *, indent: int | None = None) -> str:
    """Standard JSON (no NaN), in one line unless `indent` is given."""
    return json.dumps(plain(obj), indent=indent, ensure_ascii=False, allow_nan=False)


def plain(obj: Any) -> Any:
    """`obj` in JSON's own types.

    Mappings, sequences, paths, NumPy and torch numbers and arrays are accepted. JSON has no
    infinities and no NaN: both become null.
    """
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if obj is None or isinstance(obj, (str, bool, int)):
        return obj
    if isinstance(obj, Mapping):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [plain(value) for value in obj]
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if hasattr(obj, "tolist"):
        return plain(obj.tolist())
    raise TypeError(f"{type(obj).__name__} has no place in JSON: {obj!r}")


def sync(path: str | os.PathLike[str]) -> None:
    """Forces a file or folder to the disk, so that a later rename cannot outrun its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Forces a folder's entries to the disk: makes a rename inside it last."""
    sync(path)
