"""Decoded samples in memory-mapped files: read at the speed of memory, in any order.

    FOLDER/packed.json        classes, records a part, fingerprints of the data and of the reader
    FOLDER/reader/            the reader that decoded the samples (`Reader.save`)
    FOLDER/part-00000.bin     samples one after another, 64-byte aligned, as they lay in memory
    FOLDER/part-00000.json    key, label, meta, type, shape, place and CRC-32 of each

A part exists once its JSON file does. A packed folder is read through the reader it was packed
with; nothing is decoded again.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Decoded, Record
from ssl_core.data.heads import digest
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import atomic_path, read_json, write_json

VERSION = 1
HEAD = "packed.json"
READER = "reader"
_ALIGN = 64


@dataclass(frozen=True)
class Entry:
    """Where a sample lies in its part and what it is.

    `order` lists the tensor's axes from the slowest to the fastest in memory, so that an image
    seen as `[C, H, W]` but stored channels last comes back that way.
    """

    key: str
    label: int | None
    meta: Mapping[str, Any]
    dtype: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    offset: int
    crc32: int

    @property
    def nbytes(self) -> int:
        """Bytes of the sample."""
        return int(np.prod(self.shape, dtype=np.int64)) * _torch_dtype(self.dtype).itemsize


def part_file(folder: Path, number: int) -> Path:
    """The JSON file of a part; its samples lie beside it in `.bin`."""
    return folder / f"part-{number:05d}.json"


def write_part(folder: Path, number: int, records: Sequence[tuple[Record, Tensor]]) -> None:
    """Writes one part, whole or not at all; `records` pairs heads with decoded samples."""
    place = part_file(folder, number)
    entries: list[Entry] = []
    with atomic_path(place.with_suffix(".bin")) as temporary, temporary.open("wb") as out:
        for record, sample in records:
            entry, data = _flattened(record, sample, -(-out.tell() // _ALIGN) * _ALIGN)
            out.write(b"\0" * (entry.offset - out.tell()))
            out.write(data)
            entries.append(entry)
    write_json(place, [list(vars(entry).values()) for entry in entries], indent=None)


def _flattened(record: Record, sample: Tensor, offset: int) -> tuple[Entry, bytes]:
    if not isinstance(sample, Tensor):
        raise UserError(
            f"pack: samples of this domain are {type(sample).__name__} objects, not tensors; "
            "pack the files instead (without decoding)"
        )
    order = sorted(range(sample.dim()), key=sample.stride, reverse=True)
    flat = sample.permute(order).contiguous().view(-1).view(torch.uint8).numpy()
    data = flat.tobytes()
    kind = str(sample.dtype).removeprefix("torch.")
    meta = {name: record.meta[name] for name in ("group", "split") if name in record.meta}
    shape = tuple(sample.shape)
    crc = zlib.crc32(data)
    return Entry(record.key, record.label, meta, kind, shape, tuple(order), offset, crc), data


def _torch_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise UserError(f"data: {name!r} in a packed folder is no tensor type")
    return dtype


def is_packed(path: Path) -> bool:
    """Whether a folder holds packed samples."""
    return (path / HEAD).is_file()


class PackedSource:
    """The samples of a packed folder; `Record.payload` is `Decoded`, which needs no decoding.

    A sample's CRC-32 is checked when a process first reads it; `CorruptSample` tells of a
    mismatch. Raises `UserError` when the folder is not finished or not of this format. Tensors
    are private views of the files: whoever writes into one changes no file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        head = read_json(folder / HEAD)
        if head.get("version") != VERSION:
            raise UserError(f"data: {folder} was packed by another version; pack it again")
        if not head.get("finished"):
            raise UserError(f"data: {folder} is not finished; run the same `pack` command again")
        self.spec_digest: str = head["spec"]
        self._fingerprint: str = head["fingerprint"]
        self._classes: list[str] | None = head["classes"]
        self._entries: list[tuple[int, Entry]] = []
        for number in range(head["parts"]):
            self._entries += [(number, entry) for entry in _entries(part_file(folder, number))]
        self._checked = np.zeros(len(self._entries), dtype=bool)
        self._maps: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedSource, (self.folder,)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def reader_folder(self) -> Path:
        """Where the reader lies that decoded the samples."""
        return self.folder / READER

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self._classes

    def head(self, index: int) -> Record:
        """Key, label and meta."""
        entry = self._entries[index][1]
        return Record(entry.key, None, entry.label, entry.meta)

    def __getitem__(self, index: int) -> Record:
        number, entry = self._entries[index]
        data = self._map(number)[entry.offset : entry.offset + entry.nbytes]
        if not self._checked[index]:
            if len(data) != entry.nbytes or zlib.crc32(data.data) != entry.crc32:
                raise CorruptSample(f"bytes in {self.folder.name} differ from their checksum")
            self._checked[index] = True
        shape = [entry.shape[axis] for axis in entry.order]
        stored = torch.from_numpy(data).view(_torch_dtype(entry.dtype)).view(shape)
        sample = stored.permute(*np.argsort(entry.order).tolist()) if shape else stored
        return Record(entry.key, Decoded(sample, self.spec_digest), entry.label, entry.meta)

    def _map(self, number: int) -> np.ndarray:
        with self._lock:
            if number not in self._maps:
                path = part_file(self.folder, number).with_suffix(".bin")
                # Mode "c" is copy-on-write: torch warns of arrays that cannot be written at all.
                empty = path.stat().st_size == 0
                self._maps[number] = (
                    np.zeros(0, np.uint8) if empty else np.memmap(path, np.uint8, mode="c")
                )
            return self._maps[number]

    def fingerprint(self) -> str:
        """A hash of what was packed, and of the reader that did it."""
        return digest([self._fingerprint, self.spec_digest, len(self)])


def _entries(path: Path) -> list[Entry]:
    try:
        rows = read_json(path)
        return [
            Entry(key, label, meta, dtype, tuple(shape), tuple(order), offset, crc32)
            for key, label, meta, dtype, shape, order, offset, crc32 in rows
        ]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"data: {path} is damaged ({error}); pack the data again") from error
