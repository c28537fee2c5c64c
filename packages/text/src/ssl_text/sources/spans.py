"""Where documents stand in a file: byte offsets and lengths, found without holding the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_core.errors import UserError

_CHUNK = 1 << 24
_NEWLINE, _QUOTE, _RETURN, _GREATER = 10, 34, 13, 62


@dataclass(frozen=True)
class Spans:
    """Documents of one file: int64 `offset`, `length` in bytes; `line` they start on (from 1)."""

    offset: np.ndarray
    length: np.ndarray
    line: np.ndarray

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, rows: np.ndarray | slice) -> Spans:
        return Spans(self.offset[rows], self.length[rows], self.line[rows])


def lines(path: Path, *, quoted: bool = False) -> Spans:
    """One document a line, blank lines left out; line ends (LF or CRLF) belong to no document.

    With `quoted`, a line end between double quotes belongs to a cell (RFC 4180), so that a row of
    a table may span several lines. Quotes that do not pair up would join rows unseen: `UserError`
    names the first line of the row that then runs to the end of the file.
    """
    ends: list[np.ndarray] = []  # positions of the line ends that close a document
    breaks: list[np.ndarray] = []  # number of line ends before each of them, in the whole file
    position = quotes = seen = 0
    for chunk in _chunks(path):
        at = np.flatnonzero(chunk == _NEWLINE)
        number = seen + np.arange(len(at))
        seen += len(at)
        if quoted:
            parity = (quotes + np.cumsum(chunk == _QUOTE)) & 1
            quotes = int(parity[-1])
            number, at = number[parity[at] == 0], at[parity[at] == 0]
        ends.append(position + at)
        breaks.append(number)
        position += len(chunk)
    end = np.concatenate([*ends, [position]]).astype(np.int64)
    closed = np.concatenate([*breaks, [seen]]).astype(np.int64)
    start = np.concatenate([[0], end[:-1] + 1])
    first = np.concatenate([[0], closed[:-1] + 1]) + 1
    if quotes:
        raise UserError(
            f"data: {path}: double quotes do not pair up: the row on line {first[-1]} would run "
            "to the end of the file; close it (a quote inside a quoted cell is written twice), or "
            "save the table as .tsv, where quotes are plain characters"
        )
    spans = Spans(start, end - start, first)
    return _without_blank(path, spans[spans.length > 0])


def paragraphs(path: Path) -> Spans:
    """Documents parted by blank lines; the line ends inside a paragraph belong to it."""
    found: list[tuple[int, int, int]] = []
    start = stop = first = offset = 0
    number = 1
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(_CHUNK), b""):  # no line may fill the memory
            if line.strip():
                if stop == start:
                    start, first = offset, number
                stop = offset + len(line.rstrip(b"\r\n"))
            elif stop > start:
                found.append((start, stop - start, first))
                start = stop = offset
            offset += len(line)
            number += line.endswith(b"\n")
    if stop > start:
        found.append((start, stop - start, first))
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    return Spans(table[:, 0], table[:, 1], table[:, 2])


def entries(path: Path) -> Spans:
    """The entries of a FASTA file, each from its ">" at the start of a line to the next one."""
    starts: list[np.ndarray] = []
    numbers: list[np.ndarray] = []
    position = seen = 0
    last = _NEWLINE
    for chunk in _chunks(path):
        ends = chunk == _NEWLINE
        begins = np.concatenate([[last == _NEWLINE], ends[:-1]])
        at = np.flatnonzero(begins & (chunk == _GREATER))
        starts.append(position + at)
        numbers.append(seen + np.cumsum(ends)[at] + 1)
        seen += int(ends.sum())
        position += len(chunk)
        last = int(chunk[-1])
    if not starts:
        return Spans(*(np.zeros(0, np.int64) for _ in range(3)))
    start = np.concatenate(starts).astype(np.int64)
    stop = np.append(start, position)[1:]
    return Spans(start, stop - start, np.concatenate(numbers).astype(np.int64))


def whole(path: Path) -> Spans:
    """The file as one document, also when it is empty (reading it then says so)."""
    return Spans(np.array([0]), np.array([path.stat().st_size]), np.array([1]))


def _chunks(path: Path) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            yield np.frombuffer(data, dtype=np.uint8)


def _without_blank(path: Path, spans: Spans) -> Spans:
    """Drops lines that hold only a carriage return, and cuts it off the others."""
    if len(spans) == 0:
        return spans
    data = np.memmap(path, dtype=np.uint8, mode="r")
    carriage = data[spans.offset + spans.length - 1] == _RETURN
    cut = Spans(spans.offset, spans.length - carriage, spans.line)
    return cut[cut.length > 0]
