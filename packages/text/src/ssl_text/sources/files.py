"""Sources over text files: an index of byte offsets in memory, the documents on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ssl_core.batch import Record
from ssl_core.data.heads import digest
from ssl_core.data.limits import with_retries
from ssl_core.errors import CorruptSample
from ssl_text.sources.passage import PLAIN_LIMIT, Passage, whole_characters
from ssl_text.sources.spans import Spans

ROW_LIMIT: Final = 1 << 26
"""Bytes of the longest JSON object or table row that is read: in part they are useless."""


@dataclass(frozen=True)
class Part:
    """The documents of one file, and how to read one.

    `label` and `group` are integer `[n]` codes (-1: none) into the source's `classes` and
    `groups`.
    """

    path: Path
    name: str
    """The file's path relative to the source, which starts every key."""
    spans: Spans
    field: str | int | None = None
    delimiter: str = ","
    label: np.ndarray | None = None
    group: np.ndarray | None = None
    split: str | None = None
    """ "train", "val" or "test" where the folder says so."""
    fasta: bool = False
    """Whether the documents are FASTA entries."""


class SpanSource:
    """Documents of one or many files, read by position, safe in threads and processes.

    Memory is about 32 bytes a document. Keys are "file:line", or "file" with `keyed_by_file`.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        classes: Sequence[str] | None = None,
        groups: Sequence[str] = (),
        keyed_by_file: bool = False,
    ) -> None:
        self.parts = list(parts)
        self._classes = None if classes is None else tuple(classes)
        self._groups = tuple(groups)
        self._keyed_by_file = keyed_by_file
        self._ends = np.cumsum([len(part.spans) for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self._classes

    def head(self, index: int) -> Record:
        """Key, label and meta, without reading the document."""
        part, row = self._find(index)
        return self._record(part, row, None)

    def __getitem__(self, index: int) -> Record:
        part, row = self._find(index)
        offset, length = int(part.spans.offset[row]), int(part.spans.length[row])
        where = self._key(part, row)
        if part.field is not None and length > ROW_LIMIT:
            raise CorruptSample(f"{where}: a row of {length} bytes, more than {ROW_LIMIT}")
        raw = _read(
            part.path, offset, length if part.field is not None else min(length, PLAIN_LIMIT)
        )
        if length > len(raw):
            raw = whole_characters(raw)
        passage = Passage(raw, where, part.field, part.delimiter, offset, part.fasta)
        return self._record(part, row, passage)

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, int64 `[N]`."""
        return np.concatenate([part.spans.length for part in self.parts])

    def fingerprint(self) -> str:
        """A hash of the files' names and sizes and of the number of documents."""
        sizes = [(part.name, part.path.stat().st_size, len(part.spans)) for part in self.parts]
        return digest([fact for facts in sizes for fact in facts])

    def _find(self, index: int) -> tuple[Part, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self.parts[number]
        return part, index - int(self._ends[number]) + len(part.spans)

    def _key(self, part: Part, row: int) -> str:
        return part.name if self._keyed_by_file else f"{part.name}:{int(part.spans.line[row])}"

    def _record(self, part: Part, row: int, payload: Passage | None) -> Record:
        meta: dict[str, Any] = {}
        group = _code(part.group, row)
        if group is not None:
            meta["group"] = self._groups[group]
        if part.split is not None:
            meta["split"] = part.split
        return Record(self._key(part, row), payload, _code(part.label, row), meta)


def _code(codes: np.ndarray | None, row: int) -> int | None:
    return None if codes is None or codes[row] < 0 else int(codes[row])


def _read(path: Path, offset: int, length: int) -> bytes:
    """Part of a file by position; opened for each read, so that nothing is shared or left open."""

    def read() -> bytes:
        with path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)

    return with_retries(read)
