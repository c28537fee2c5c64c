"""JSON lines: one graph a line, found by byte offset, never read as a whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from ssl_core.batch import Record
from ssl_core.data.heads import digest
from ssl_core.errors import CorruptSample, UserError
from ssl_graph.graph import RawGraph
from ssl_graph.sources.convert import from_json
from ssl_graph.sources.labelled import LabelledGraphs


class GraphLines(LabelledGraphs):
    """A `.jsonl` file as a source; the payload is `GraphLine`, parsed by the reader.

    Line layout: see `convert.from_json`; `label` (or `y`) is the class, `key` and `group` are
    optional. Labels are collected in one pass when the file is opened; a line that is not JSON
    is kept as a record that turns out corrupt.
    """

    def __init__(self, path: Path, *, directed: bool = False) -> None:
        self.path = path
        self.directed = directed
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._numbers: list[int] = []
        self._meta: list[tuple[str, object, object]] = []
        self._scan()
        if not self._offsets:
            raise UserError(f"data.path: {str(path)!r} holds no lines")
        super().__init__([label for _, label, _ in self._meta])

    def _scan(self) -> None:
        offset = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    self._offsets.append(offset)
                    self._lengths.append(len(line))
                    self._numbers.append(number)
                    self._meta.append(_facts(line, number))
                offset += len(line)

    def __len__(self) -> int:
        return len(self._offsets)

    def head(self, index: int) -> Record:
        """Key, label and meta."""
        key, _, group = self._meta[index]
        meta = {} if group is None else {"group": str(group)}
        return Record(key, None, self.label(index), meta)

    def payload(self, index: int) -> GraphLine:
        """Where the line is."""
        return GraphLine(
            self.path,
            self._offsets[index],
            self._lengths[index],
            self._numbers[index],
            self.directed,
        )

    def fingerprint(self) -> str:
        """File name, size and line offsets."""
        offsets = np.array(self._offsets, dtype=np.int64).tobytes()
        return digest([self.path.name, self.path.stat().st_size, offsets])


def _facts(line: bytes, number: int) -> tuple[str, object, object]:
    """(key, label, group) of a line; a broken line has only a key."""
    try:
        item = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return f"line {number}", None, None
    if not isinstance(item, dict):
        return f"line {number}", None, None
    label = item.get("label", item.get("y"))
    while isinstance(label, list) and len(label) == 1:
        label = label[0]
    if not isinstance(label, (str, int)):
        label = None
    return str(item.get("key", f"line {number}")), label, item.get("group")


class GraphLine:
    """Where one line is; `parse` reads it."""

    __slots__ = ("directed", "length", "number", "offset", "path")

    def __init__(self, path: Path, offset: int, length: int, number: int, directed: bool) -> None:
        self.path = path
        self.offset = offset
        self.length = length
        self.number = number
        self.directed = directed

    def parse(self) -> RawGraph:
        """The graph; raises `CorruptSample` naming file and line."""
        where = f"{self.path}, line {self.number}"
        with self.path.open("rb") as file:
            data = os.pread(file.fileno(), self.length, self.offset)
        try:
            return from_json(json.loads(data), directed=self.directed)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise CorruptSample(f"{where}: not valid JSON: {error}") from error
        except CorruptSample as error:
            raise CorruptSample(f"{where}: {error}") from error
