"""Tar shards read by random access, among them those written for WebDataset.

Nothing is unpacked: members are read in place, only regular files with an allowed suffix, each up
to a cap. Members that share a path up to the first dot of their file name are one sample:
`0001.jpg` with `0001.cls` (its label) and `0001.json` (its meta).
"""

from __future__ import annotations

import json
import os
import re
import threading
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.batch import Record
from ssl_core.data.folder import normalised
from ssl_core.data.heads import digest
from ssl_core.data.labels import encode_labels, from_paths, label_of
from ssl_core.data.limits import MAX_BYTES, with_retries
from ssl_core.data.remote import RemoteFiles, RemoteShard
from ssl_core.data.tar_index import SIDECAR_BYTES, Member, index_of
from ssl_core.errors import CorruptSample, UserError

_MAX_OPEN = 256
"""Shards kept open; further ones are opened for each read."""


@dataclass(frozen=True)
class _Sample:
    """The members of one sample: the payload and its sidecars."""

    shard: int
    payload: Member
    label: Member | None
    meta: Member | None

    def fact(self, name: str) -> Any:
        """What the sidecars say, the label file first; None if nothing."""
        for sidecar in (self.label, self.meta):
            if sidecar is not None and name in sidecar.facts:
                return sidecar.facts[name]
        return None


class TarSource:
    """Samples in tar shards; `Record.payload` is the bytes of the member with a suffix allowed.

    Keys are `SHARD/MEMBER`. Labels come from `.cls` members, else from `label`, `cls` or `class`
    in `.json` members, else from folders inside the shards. The whole JSON object is the
    record's meta, where `group` and `split` steer hold-outs. Bytes are checked against the
    index's CRC-32; `CorruptSample` tells of a mismatch and of members above `max_bytes`.
    """

    def __init__(
        self,
        shards: Sequence[Path] | Sequence[RemoteShard],
        suffixes: Sequence[str],
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        remote = [shard for shard in shards if isinstance(shard, RemoteShard)]
        local = [Path(shard) for shard in shards if not isinstance(shard, RemoteShard)]
        assert not (remote and local), "shards lie on one side"
        self._names = [shard.name for shard in remote or local]
        self.max_bytes = max_bytes
        self._files = RemoteFiles(remote) if remote else _Files(local)
        self._samples: list[_Sample] = []
        indices = [shard.index() for shard in remote] or [index_of(shard) for shard in local]
        for number, members in enumerate(indices):
            self._samples += _group(number, members, normalised(suffixes))
        if not self._samples:
            looked = ", ".join(normalised(suffixes))
            names = ", ".join(
                shard.url if isinstance(shard, RemoteShard) else str(shard) for shard in shards[:3]
            )
            raise UserError(f"data: no member of {names} ends in {looked}")
        self.labels, self._classes, self._splits = self._read_labels()

    def _read_labels(self) -> tuple[np.ndarray | None, Sequence[str] | None, list[str] | None]:
        words = [sample.fact("label") for sample in self._samples]
        labels, classes = encode_labels(words)
        if labels is not None:
            return labels, classes, None
        return from_paths([sample.payload.name for sample in self._samples])

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self._classes

    def _key(self, sample: _Sample) -> str:
        return f"{self._names[sample.shard]}/{sample.payload.name.removeprefix('./')}"

    def head(self, index: int) -> Record:
        """Key, label, and of the meta what hold-outs need."""
        sample = self._samples[index]
        split = None if self._splits is None else self._splits[index]
        facts = {"group": sample.fact("group"), "split": sample.fact("split") or split}
        meta = {name: fact for name, fact in facts.items() if fact is not None}
        return Record(self._key(sample), None, label_of(self.labels, index), meta)

    def __getitem__(self, index: int) -> Record:
        head, sample = self.head(index), self._samples[index]
        data = self._read(sample.shard, sample.payload, self.max_bytes)
        meta = head.meta if sample.meta is None else {**self._json(sample), **head.meta}
        return Record(head.key, data, head.label, meta)

    def _json(self, sample: _Sample) -> dict[str, Any]:
        assert sample.meta is not None
        data = self._read(sample.shard, sample.meta, SIDECAR_BYTES)
        try:
            value = json.loads(data)
        except ValueError as error:
            raise CorruptSample(f"{sample.meta.name} is not JSON: {error}") from error
        return value if isinstance(value, dict) else {"json": value}

    def _read(self, shard: int, member: Member, cap: int) -> bytes:
        if member.length > cap:
            raise CorruptSample(f"{member.name}: {member.length} bytes, more than the cap of {cap}")
        data = with_retries(lambda: self._files.read(shard, member.offset, member.length))
        if len(data) < member.length or zlib.crc32(data) != member.crc32:
            self._files.doubt(shard)
            raise CorruptSample(f"{member.name}: bytes differ from the shard's index")
        return data

    def fingerprint(self) -> str:
        """A hash of keys and sizes."""
        return digest(f"{self._key(s)} {s.payload.length}" for s in self._samples)

    def close(self) -> None:
        """Closes the shards; a later read opens them again."""
        self._files.close()


def open_tars(shards: Sequence[Path] | Sequence[RemoteShard], suffixes: Sequence[str]) -> TarSource:
    """A source from shards, in the order given."""
    return TarSource(shards, suffixes)


def expand_braces(pattern: str) -> list[str]:
    """`a-{00..02}.tar` as a-00.tar, a-01.tar, a-02.tar; several braces multiply."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    before, after = pattern[: match.start()], pattern[match.end() :]
    numbers = (f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1))
    return [name for number in numbers for name in expand_braces(f"{before}{number}{after}")]


def _group(shard: int, members: Sequence[Member], suffixes: tuple[str, ...]) -> list[_Sample]:
    """Samples of one shard, in the order of their payloads' first members."""
    stems: dict[str, dict[str, Member]] = {}
    for member in members:
        folder, _, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        stems.setdefault(f"{folder}/{stem}", {})[(dot + extension).lower()] = member
    samples = []
    for parts in stems.values():
        # "a.jpg" before "a.seg.jpg": the payload is the member with the plainest extension.
        fitting = [extension for extension in parts if extension.endswith(suffixes)]
        if fitting:
            payload = min(fitting, key=lambda extension: extension.count("."))
            label = parts.get(".cls") if payload != ".cls" else None
            meta = parts.get(".json") if payload != ".json" else None
            samples.append(_Sample(shard, parts[payload], label, meta))
    return samples


class _Files:
    """Descriptors of shards, for reads at a position from any thread or forked process."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _close, self._open)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Files, (self._paths,)

    def read(self, number: int, offset: int, length: int) -> bytes:
        """The bytes at a place of a shard; fewer when it ends before."""
        with self._lock:
            file = self._open.get(number)
            if file is None and len(self._open) < _MAX_OPEN:
                file = self._open[number] = os.open(self._paths[number], os.O_RDONLY)
        if file is not None:
            return _pread(file, length, offset)
        file = os.open(self._paths[number], os.O_RDONLY)
        try:
            return _pread(file, length, offset)
        finally:
            os.close(file)

    def doubt(self, number: int) -> None:
        """A local shard that differs from its index has damaged members, no other version."""

    def close(self) -> None:
        with self._lock:
            _close(self._open)


def _pread(file: int, length: int, offset: int) -> bytes:
    """`os.pread` until everything is there: one call gives at most 2 GiB."""
    parts = []
    while length and (part := os.pread(file, length, offset)):
        parts.append(part)
        length -= len(part)
        offset += len(part)
    return b"".join(parts)


def _close(files: dict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])
