"""One raw document as a source hands it out: bytes, and how to get its text out of them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core.data.limits import with_retries
from ssl_core.errors import CorruptSample, UserError

PLAIN_LIMIT = 1 << 20
"""Bytes read of a plain document: readers cut documents at `max_length` tokens anyway."""


@dataclass(frozen=True)
class Passage:
    """The bytes of one document and where they stand.

    `field` is None for plain text, else the field to take: a name for a JSON object, a column
    number for a row of a table whose cells are parted by `delimiter`.
    """

    raw: bytes
    where: str
    field: str | int | None = None
    delimiter: str = ","
    start: int = 0
    """Offset of `raw` in its file, so that a message can name the byte that is wrong."""
    fasta: bool = False
    """A FASTA entry: a line of description, then the sequence in lines."""

    def text(self) -> str:
        """The document; raises `CorruptSample` for invalid UTF-8, JSON, rows or empty text."""
        decoded = utf8(self.raw, where=self.where, start=self.start)
        if isinstance(self.field, str):
            decoded = _json_field(decoded, self.field, self.where)
        elif isinstance(self.field, int):
            decoded = _cell(decoded, self.field, self.delimiter, self.where)
        return _sequence(decoded) if self.fasta else decoded


def utf8(raw: bytes, *, where: str, start: int = 0) -> str:
    """Bytes as text, without a byte order mark; raises `CorruptSample` naming the bad byte."""
    nothing = raw.find(b"\0")
    if nothing >= 0:
        raise CorruptSample(
            f"{where}: zero at byte {start + nothing}: not text, or not in UTF-8 (UTF-16?)"
        )
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        bad = raw[error.start]
        raise CorruptSample(
            f"{where}: invalid UTF-8 at byte {start + error.start} (0x{bad:02x})"
        ) from error


def check_encoding(path: Path) -> None:
    """`UserError` for UTF-16 and binary files, which would be full of corrupt samples."""
    with path.open("rb") as file:
        first = file.read(4096)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first:
        raise UserError(
            f"data: {path} is not text in UTF-8 (UTF-16, or no text at all); convert it, for "
            "instance with `iconv -f UTF-16 -t UTF-8`"
        )


def whole_characters(raw: bytes) -> bytes:
    """Bytes cut at a limit, less the UTF-8 character the cut went through."""
    for back in range(1, min(4, len(raw)) + 1):
        if raw[-back] & 0xC0 != 0x80:  # the first byte of the last character
            width = 1 + (raw[-back] >= 0xC0) + (raw[-back] >= 0xE0) + (raw[-back] >= 0xF0)
            return raw if width <= back else raw[:-back]
    return raw


def text_of(payload: Any, key: str) -> str:
    """The text of any payload a source may hold: passage, string, bytes or a file's `Path`.

    A string is the document itself; of a file at most its first MiB counts. Raises
    `CorruptSample` when it cannot be decoded or holds nothing but white space.
    """
    if isinstance(payload, Passage):
        text = payload.text()
    elif isinstance(payload, bytes):
        text = utf8(payload, where=key)
    elif isinstance(payload, Path):
        text = utf8(_beginning(payload), where=key)
    elif isinstance(payload, str):
        text = payload
    else:
        raise CorruptSample(f"{key}: expected text, got {type(payload).__name__}")
    if not text.strip():
        raise CorruptSample(f"{key}: empty document")
    return text


def _beginning(path: Path) -> bytes:
    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(PLAIN_LIMIT)

    raw = with_retries(read)
    return whole_characters(raw) if len(raw) == PLAIN_LIMIT else raw


def _json_field(line: str, field: str, where: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise CorruptSample(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get(field), str):
        raise CorruptSample(f"{where}: no text in field {field!r}")
    text: str = value[field]
    return text


def _sequence(entry: str) -> str:
    """The letters of a FASTA entry, without description, white space and the mark of its end."""
    _, _, letters = entry.partition("\n")
    return "".join(letters.split()).removesuffix("*")


def cells(row: str, delimiter: str) -> list[str]:
    """The cells of one table row. Commas allow quoted cells; tabs take every character as is."""
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    rows = list(csv.reader(io.StringIO(row, newline=""), delimiter=delimiter, quoting=quoting))
    return rows[0] if rows else []


def _cell(row: str, column: int, delimiter: str, where: str) -> str:
    found = cells(row, delimiter)
    if column >= len(found):
        raise CorruptSample(f"{where}: {len(found)} columns, the text is in column {column + 1}")
    return found[column]
