"""Tar shards behind a URL: fetched to a cache folder when first read, or read in place.

Any URL that fsspec knows (extra `remote`): https://, and with its own library s3:// (s3fs), gs://
(gcsfs), hf:// and others. In the cache folder (`$SSL_CACHE`, else `~/.cache/ssl`):

    shards/<hash of the folder's URL>/s-00000.tar            whole, compared with its index
                                      s-00000.tar.index      the side index, fetched or built
                                      s-00000.tar.version    what the server said it was
                                      .s-00000.tar.*.part    the bytes fetched so far

Where the shards have side indices (`pack` writes them), opening fetches only those.
`$SSL_CACHE_BYTES` (200G, say) limits what is kept: to make room, shards of other data go first,
those not used for longest; shards that still do not fit are not fetched, and their members read one
by one over the network. A fetch that broke off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ssl_core.data.tar_index import Member, agrees, index_of, read_index
from ssl_core.errors import TrainingAborted, UserError
from ssl_core.files import atomic_write, cache_folder

T = TypeVar("T")

CHUNK = 8 << 20
"""Bytes asked for at once; what a broken fetch loses at most."""
RESERVE = 2 << 30
"""Bytes left free on the disk of the cache."""
PAUSES = (0.2, 1.0, 4.0)
"""Seconds before the second, third and fourth attempt."""
_AT_ONCE = 16
_VERSIONS = ("ETag", "etag", "Last-Modified", "LastModified", "mtime", "generation")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def is_remote(text: str) -> bool:
    """Whether a data path is a URL."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.\-]+://", text) is not None


@dataclass(frozen=True)
class RemoteShard:
    """A shard as the server described it when the data were opened."""

    url: str
    size: int
    version: str

    @property
    def name(self) -> str:
        """The file's name alone."""
        return urlsplit(self.url).path.rpartition("/")[2]

    @property
    def local(self) -> Path:
        """Where it is kept."""
        parts = urlsplit(self.url)
        place = f"{parts.scheme}://{parts.netloc}{parts.path.rpartition('/')[0]}"
        folder = hashlib.blake2b(place.encode(), digest_size=12).hexdigest()
        return _root() / folder / self.name

    def index(self) -> list[Member]:
        """The members, from the kept index, else the server's, else the fetched shard's own."""
        local = self.local
        self._drop_other_versions()
        index = local.with_name(f"{self.name}.index")
        found = read_index(index, self.size)
        if found is None:
            place, mark, query = self.url.partition("?")
            theirs = f"{place}.index{mark}{query}"
            with contextlib.suppress(FileNotFoundError):
                atomic_write(index, _asked(theirs, lambda files: files.cat_file(theirs)))
            found = read_index(index, self.size)  # None, too, when it is another version's
        if found is not None:
            return found[1]
        if not self.fetched():
            raise UserError(
                f"data: {self.url} has no side index, and its {self.size / 1e9:.2f} GB do not fit "
                "into the cache to make one; give $SSL_CACHE_BYTES or its disk more room, or write "
                "the shards with `pack`, which makes indices"
            )
        return index_of(local)

    def _drop_other_versions(self) -> None:
        local, now = self.local, f"{self.size} {self.version}"
        noted = local.with_name(f"{self.name}.version")
        if noted.is_file() and noted.read_text(encoding="utf-8") == now:
            return
        for old in (local, local.with_name(f"{self.name}.index")):
            old.unlink(missing_ok=True)
        atomic_write(noted, now)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at a place: from the kept shard, which is fetched first, or over the network.

        Raises `TrainingAborted` when the server cannot be reached, `UserError` when the shard is
        no longer what it was.
        """
        for _ in range(3):  # another process may clear it away between the two lines
            if not self.fetched():
                break
            with contextlib.suppress(FileNotFoundError), self.local.open("rb") as file:
                os.utime(self.local)  # the order in which shards are cleared away
                file.seek(offset)
                return file.read(length)
        try:
            end = offset + length
            data = _asked(self.url, partial(_range, url=self.url, start=offset, end=end))
        except FileNotFoundError as error:
            raise self._changed() from error
        return data if len(data) <= length else data[offset:end]  # a server without ranges

    def fetched(self) -> bool:
        """Fetches the shard unless it is kept already; False where there is no room for it."""
        local = self.local
        if local.is_file():
            return True
        with _locked(local.with_name(f".{self.name}.lock")):
            if local.is_file():
                return True
            if not make_room(local, self.size):
                return False
            for attempt in (1, 2):
                part = self._fetch()
                if self._agrees(part):
                    os.replace(part, local)
                    return True
                part.unlink()  # spoilt on the way; once more from the start
                if attempt == 2:
                    self.require_unchanged()
        raise UserError(
            f"data: {self.url} was fetched twice and does not agree with its index; write the "
            f"shard and {self.name}.index again with `pack`, or remove that index"
        )

    def _agrees(self, part: Path) -> bool:
        found = read_index(self.local.with_name(f"{self.name}.index"), self.size)
        return found is None or agrees(part, *found)

    def _fetch(self) -> Path:
        """The whole shard under a temporary name, from where an earlier fetch broke off."""
        mark = hashlib.blake2b(self.version.encode(), digest_size=6).hexdigest()
        part = self.local.with_name(f".{self.name}.{self.size}-{mark}.part")
        with part.open("ab") as out:
            while (at := out.tell()) < self.size:
                end = min(at + CHUNK, self.size)
                try:
                    data = _asked(self.url, partial(_range, url=self.url, start=at, end=end))
                except FileNotFoundError as error:
                    raise self._changed() from error
                if len(data) == self.size:  # a server without ranges sends everything
                    out.truncate(0)
                elif len(data) != end - at:
                    self.require_unchanged()
                    raise TrainingAborted(
                        f"data: {self.url} ends after {at + len(data)} of {self.size} bytes; what "
                        "is there was kept: fix the shard or the server and run the same command"
                    )
                out.write(data)
            out.flush()
            os.fsync(out.fileno())
        return part

    def require_unchanged(self) -> None:
        """Raises `UserError` when the server now has another version, or none."""
        try:
            now = _described(self.url)
        except UserError as error:
            raise self._changed() from error
        if now != self:
            raise self._changed()

    def _changed(self) -> UserError:
        return UserError(
            f"data: {self.url} is no longer what it was when this command opened it; start again "
            "to use the new data, or put the old shard back"
        )


def remote_shards(url: str) -> list[RemoteShard]:
    """The shards that a URL stands for, sorted: a folder, a pattern (`*`, `{00..99}`) or one tar.

    Raises `UserError` when nothing is there, the server cannot be reached, or fsspec lacks the
    library for such URLs.
    """
    from ssl_core.data.tar import expand_braces

    found: list[str] = []
    for pattern in expand_braces(url):
        if "*" in pattern or "[" in urlsplit(pattern).path:
            found += _listed(pattern, partial(_matching, pattern=pattern))
        elif re.search(r"\.tar(\.\w+)?$", urlsplit(pattern).path):
            found.append(pattern)
        else:
            found += _listed(pattern, partial(_inside, folder=pattern))
    shards = sorted(set(found))
    if not shards:
        raise UserError(
            f"data: {url} lists no .tar shards (a server may not tell what it holds: name them, "
            "as in shard-{00000..00009}.tar); other files are read from local disks only"
        )
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="remote") as pool:
        described = list(pool.map(_described, shards))
        list(pool.map(RemoteShard.index, described))  # fetched side by side; read again at once
    return described


def _listed(pattern: str, ask: Callable[[Any], list[str]]) -> list[str]:
    try:
        names = _opening(pattern, ask)
    except FileNotFoundError as error:
        raise UserError(f"data: {pattern} does not exist, or cannot be listed") from error
    return [name for name in names if urlsplit(name).path.endswith(".tar")]


def _described(url: str) -> RemoteShard:
    try:
        info = _opening(url, lambda files: files.info(url))
    except FileNotFoundError as error:
        raise UserError(f"data: {url} does not exist (404)") from error
    if not isinstance(info.get("size"), int):
        raise UserError(f"data: {url}: the server does not tell its size; copy it to a local disk")
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    return RemoteShard(url, info["size"], version)


def _opening(url: str, work: Callable[[Any], T]) -> T:
    """`_asked` before training, when an unreachable server is a matter of the arguments."""
    try:
        return _asked(url, work)
    except TrainingAborted as error:
        raise UserError(str(error)) from error


def _asked(url: str, work: Callable[[Any], T]) -> T:
    """`work(file system of the URL)`, tried again after what may pass.

    Raises `FileNotFoundError` for what does not exist, `TrainingAborted` when all attempts failed:
    records must not be replaced by others because a network was down.
    """
    for pause in (*PAUSES, None):
        try:
            return work(_files(url))
        except UserError:
            raise
        except Exception as error:  # each backend has errors of its own
            reason = _reason(error)
            status = getattr(reason, "status", None)
            if isinstance(reason, FileNotFoundError) or status in (404, 410):
                raise FileNotFoundError(url) from error
            refused = status is not None and 400 <= status < 500 and status not in (408, 429)
            if pause is None or refused or isinstance(reason, PermissionError):
                words = str(reason).strip() or type(reason).__name__
                raise TrainingAborted(
                    f"data: {url} cannot be read: {words}; when the server answers again, the "
                    "same command goes on"
                ) from error
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _reason(error: Exception) -> BaseException:
    """What failed: fsspec says "not found" of every question about a URL that had no answer."""
    cause = error.__cause__
    lost = isinstance(cause, OSError) or type(cause).__module__.partition(".")[0] == "aiohttp"
    return cause if cause is not None and lost else error


def _matching(files: Any, *, pattern: str) -> list[str]:
    return [files.unstrip_protocol(name) for name in files.glob(pattern)]


def _inside(files: Any, *, folder: str) -> list[str]:
    return [files.unstrip_protocol(name) for name in files.ls(folder, detail=False)]


def _range(files: Any, *, url: str, start: int, end: int) -> bytes:
    data: bytes = files.cat_file(url, start, end)
    return data


def _files(url: str) -> Any:
    """fsspec's file system for a URL; it keeps one for each protocol, thread and process."""
    scheme = urlsplit(url).scheme
    try:
        import fsspec

        return fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"data: {scheme}:// URLs cannot be read here ({error}); pip install "
            "'ssl-core[remote]' for https://, and for others the library that fsspec names"
        ) from error


def _root() -> Path:
    return cache_folder() / "shards"


def cache_limit() -> float:
    """`$SSL_CACHE_BYTES` as bytes (200G, 1.5T, a plain number); without it no limit."""
    text = os.environ.get("SSL_CACHE_BYTES", "").strip()
    if not text:
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.upper())
    if match is None:
        raise UserError(f"SSL_CACHE_BYTES: {text!r} is no size; write bytes, or 200G")
    return float(match[1]) * _UNITS[match[2]]


def make_room(wanted: Path, size: int) -> bool:
    """Whether `size` more bytes may be kept, after clearing away shards of other data sets.

    Those of `wanted`'s own data stay: every epoch reads all of them.
    """
    wanted.parent.mkdir(parents=True, exist_ok=True)
    limit = cache_limit()
    kept = {path: path.stat() for path in _root().glob("*/*.tar*") if _is_shard(path)}
    used = sum(status.st_size for status in kept.values())
    others = sorted(
        (path for path in kept if path.parent != wanted.parent),
        key=lambda path: kept[path].st_mtime,
        reverse=True,
    )
    while used + size > limit or shutil.disk_usage(_root()).free < size + RESERVE:
        if not others:
            return False
        oldest = others.pop()
        oldest.unlink(missing_ok=True)
        used -= kept[oldest].st_size
    return True


def _is_shard(path: Path) -> bool:
    return path.suffix not in (".index", ".version") and path.is_file()


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Holds a lock file against other threads and processes of this machine."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("ab") as file:
        try:
            import fcntl
        except ImportError:  # elsewhere two may fetch the same shard; the renaming stays atomic
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class RemoteFiles:
    """The bytes of remote shards by number, as `TarSource` asks for them."""

    def __init__(self, shards: list[RemoteShard]) -> None:
        self.shards = shards

    def read(self, number: int, offset: int, length: int) -> bytes:
        """The bytes at a place of a shard."""
        return self.shards[number].read(offset, length)

    def doubt(self, number: int) -> None:
        """Bytes were not the index's: has the shard changed? Raises `UserError` if so."""
        self.shards[number].require_unchanged()

    def close(self) -> None:
        """Nothing is kept open."""
