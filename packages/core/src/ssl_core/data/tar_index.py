"""The side index of a tar shard: where each member lies, so that any one can be read alone."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ssl_core.errors import UserError

VERSION = 1
SIDECAR_BYTES = 1 << 20
"""Largest label or meta file read: 1 MiB."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A regular file in a shard: its name, its bytes' place, their CRC-32.

    `facts` is what a sidecar says that must be known before any sample is read: label, group and
    split from `.json`, the label from `.cls`.
    """

    name: str
    offset: int
    length: int
    crc32: int
    facts: Mapping[str, Any] = field(default_factory=dict)


def index_of(shard: Path) -> list[Member]:
    """The members of a shard, from its side index; builds and keeps the index where it is missing.

    The index is `NAME.tar.index` beside the shard, or lies in the cache folder (`$SSL_CACHE`, else
    `~/.cache/ssl`) when that place is read-only. It is rebuilt when the shard's size or sampled
    content changed. Raises `UserError` for compressed and damaged shards.
    """
    try:
        with shard.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            stamp = _stamp(file, size)
            for place in _places(shard):
                members = _load(place, size, stamp)
                if members is not None:
                    return members
            members = _scan(file, shard, size)
    except OSError as error:
        raise UserError(f"data: {shard} cannot be read: {error.strerror}") from error
    _keep(shard, size, stamp, members)
    return members


def _places(shard: Path) -> tuple[Path, Path]:
    """Where an index may lie: beside the shard, or in the cache folder."""
    whole = str(shard.resolve())
    name = hashlib.blake2b(os.fsencode(whole), digest_size=12).hexdigest()
    cache = os.environ.get("SSL_CACHE")
    folder = Path(cache) if cache else Path.home() / ".cache" / "ssl"
    return shard.with_name(shard.name + ".index"), folder / "tar-index" / f"{name}.index"


def _stamp(file: BinaryIO, size: int) -> str:
    """A hash of 16 blocks spread over the shard; survives copying, unlike times."""
    state = hashlib.blake2b(digest_size=8)
    for i in range(16):
        file.seek(max(0, size - 4096) * i // 15)
        state.update(file.read(4096))
    file.seek(0)
    return state.hexdigest()


def _load(place: Path, size: int, stamp: str) -> list[Member] | None:
    """The index at `place`, or None unless it is whole and describes this very shard."""
    found = read_index(place, size)
    return found[1] if found is not None and found[0] == stamp else None


def read_index(place: Path, size: int) -> tuple[str, list[Member]] | None:
    """(stamp, members) of the index file at `place`; None unless it is one of `size` bytes."""
    try:
        stored = json.loads(place.read_text(encoding="utf-8"))
        if [stored["version"], stored["size"]] != [VERSION, size]:
            return None
        members = [
            Member(str(name), int(offset), int(length), int(crc32), dict(facts))
            for name, offset, length, crc32, facts in stored["members"]
        ]
        stamp = str(stored["stamp"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: it is only a cache of what the shard says
    inside = all(m.offset >= 0 and m.length >= 0 and m.offset + m.length <= size for m in members)
    return (stamp, members) if inside else None


def agrees(shard: Path, stamp: str, members: list[Member]) -> bool:
    """Whether a shard's sampled content and the CRC-32 of every member are the index's."""
    with shard.open("rb") as file:
        if _stamp(file, os.fstat(file.fileno()).st_size) != stamp:
            return False
        return all(_crc32(file, m.offset, m.length) == m.crc32 for m in members)


def _keep(shard: Path, size: int, stamp: str, members: list[Member]) -> None:
    """Writes the index to the first place that can be written, under a temporary name first."""
    rows = [[m.name, m.offset, m.length, m.crc32, m.facts] for m in members]
    text = json.dumps({"version": VERSION, "size": size, "stamp": stamp, "members": rows})
    for place in _places(shard):
        temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, place)
            return
        except OSError:
            continue  # a read-only place; without any, the index is built again next time


def _scan(file: BinaryIO, shard: Path, size: int) -> list[Member]:
    """Walks through the shard once. Links, devices, sparse and hidden files are passed over."""
    members = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if info.size < 0 or (info.isreg() and info.offset_data + info.size > size):
                    raise tarfile.ReadError(f"{info.name} is cut short")
                if info.isreg() and not info.issparse() and not _hidden(info.name):
                    crc = _crc32(file, info.offset_data, info.size)
                    facts = _facts(file, info)
                    members.append(Member(info.name, info.offset_data, info.size, crc, facts))
                tar.members = []  # type: ignore[attr-defined]  # else every header is kept
            _check_end(file, tar.offset, size)
    except tarfile.TarError as error:
        hint = "unpack the compression first" if _compressed(file) else "fetch it again"
        raise UserError(f"data: {shard} is no complete plain tar file ({error}); {hint}") from error
    return members


def _facts(file: BinaryIO, info: tarfile.TarInfo) -> Mapping[str, Any]:
    """The facts of a sidecar; none where it cannot be read, which its record reports later."""
    kind = os.path.splitext(info.name)[1].lower()
    if kind not in (".cls", ".json") or info.size > SIDECAR_BYTES:
        return {}
    file.seek(info.offset_data)
    data = file.read(info.size)
    if kind == ".cls":
        return {"label": data[:256].decode("utf-8", "replace").strip()}
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    found = value if isinstance(value, dict) else {}
    label = next((found[name] for name in ("label", "cls", "class") if name in found), None)
    facts = {"label": label, "group": found.get("group"), "split": found.get("split")}
    return {name: fact for name, fact in facts.items() if isinstance(fact, (str, int, float))}


def _check_end(file: BinaryIO, offset: int, size: int) -> None:
    """tarfile takes a damaged header for the end; the true end is zeros, or nothing."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0") and offset < size:
        raise tarfile.ReadError(f"damaged at byte {offset}")


def _crc32(file: BinaryIO, offset: int, length: int) -> int:
    """CRC-32 of a stretch of the file."""
    file.seek(offset)
    crc = 0
    while length:
        block = file.read(min(length, _BLOCK))
        if not block:
            raise tarfile.ReadError("unexpected end of data")
        crc = zlib.crc32(block, crc)
        length -= len(block)
    return crc


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/") if part not in (".", ".."))


def _compressed(file: BinaryIO) -> bool:
    file.seek(0)
    magic = file.read(6)
    return magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
