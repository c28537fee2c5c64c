"""JSON lines and tables: files whose rows carry a text and, optionally, a label and a group."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.data.labels import encode_labels
from ssl_core.errors import UserError, unknown
from ssl_text.options import TextOptions
from ssl_text.sources.files import ROW_LIMIT, Part, SpanSource
from ssl_text.sources.passage import cells, check_encoding
from ssl_text.sources.spans import lines

DELIMITERS = {".csv": ",", ".tsv": "\t"}
Fields = Callable[[bytes], Sequence[Any]]
"""Label and group of a raw row; None where there is none or the row is broken."""


def jsonl_source(parts: Sequence[Part], options: TextOptions) -> SpanSource:
    """One JSON object a line; a broken line is a corrupt sample when it is read."""
    wanted = (options.label_field, options.group_field)

    def fields(row: bytes) -> Sequence[Any]:
        try:
            value = json.loads(row)
        except ValueError:
            return (None, None)
        return [value.get(name) for name in wanted] if isinstance(value, dict) else (None, None)

    for part in parts:
        _check_json(part.path, options.text_field)
    indexed = [replace(part, spans=lines(part.path), field=options.text_field) for part in parts]
    return _labelled(indexed, [fields] * len(parts))


def table_source(parts: Sequence[Part], options: TextOptions) -> SpanSource:
    """CSV (quoted cells may span lines) or TSV (no quoting) with a header row."""
    indexed, readers = [], []
    for part in parts:
        delimiter = delimiter_of(part.path)
        header = table_header(part.path)
        if options.text_field not in header:
            raise unknown(f"{part.path}: data.options.text_field", options.text_field, header)
        wanted = [
            header.index(field) if field in header else None
            for field in (options.label_field, options.group_field)
        ]
        column = header.index(options.text_field)
        spans = lines(part.path, quoted=delimiter == ",")[1:]
        indexed.append(replace(part, spans=spans, field=column, delimiter=delimiter))
        readers.append(_row_fields(delimiter, wanted))
    return _labelled(indexed, readers)


def delimiter_of(path: Path) -> str:
    """What parts the cells of a table: a tab in `.tsv` files, a comma in any other."""
    return DELIMITERS.get(path.suffix.lower(), ",")


def table_header(path: Path) -> list[str]:
    """The column names of a table."""
    check_encoding(path)
    row = _first_line(path)
    if not row:
        raise UserError(f"data.path: {str(path)!r} is empty; a table needs a header row")
    try:
        text = row.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"data.path: {str(path)!r}: the header is not UTF-8: {error}") from error
    return [name.strip() for name in cells(text.rstrip("\r\n"), delimiter_of(path))]


def _first_line(path: Path) -> bytes:
    """The first line that is not blank, or as much of it as is ever read of a row."""
    with path.open("rb") as file:
        lines = iter(lambda: file.readline(ROW_LIMIT), b"")
        return next((line for line in lines if line.strip()), b"")


def _row_fields(delimiter: str, columns: Sequence[int | None]) -> Fields:
    def fields(row: bytes) -> Sequence[Any]:
        found = cells(row.decode("utf-8", errors="replace"), delimiter)
        return [found[c] if c is not None and c < len(found) else None for c in columns]

    return fields


def _labelled(parts: Sequence[Part], readers: Sequence[Fields]) -> SpanSource:
    """Reads every row once for its label and its group, and keeps two integers of each."""
    found = [
        fields(row) for part, fields in zip(parts, readers, strict=True) for row in _rows(part)
    ]
    labels, classes = encode_labels([label for label, _ in found])
    names: dict[str, int] = {}
    groups = np.array([_number(names, group) for _, group in found], dtype=np.int32)
    coded, start = [], 0
    for part in parts:
        own = slice(start, start + len(part.spans))
        label = None if labels is None else labels[own].astype(np.int32)
        coded.append(replace(part, label=label, group=groups[own]))
        start += len(part.spans)
    return SpanSource(coded, classes=classes, groups=list(names))


def _number(names: dict[str, int], group: Any) -> int:
    """A code for a group, numbered as they come; -1 for none."""
    return -1 if group is None or group == "" else names.setdefault(str(group), len(names))


def _rows(part: Part) -> Iterator[bytes]:
    with part.path.open("rb") as file:
        for offset, length in zip(part.spans.offset, part.spans.length, strict=True):
            file.seek(int(offset))
            yield file.read(int(length)) if length <= ROW_LIMIT else b""


def _check_json(path: Path, field: str) -> None:
    """A wrong field name is the user's slip, not a corpus full of corrupt samples."""
    try:
        value = json.loads(_first_line(path))
    except ValueError:
        return  # a corrupt sample, reported when it is read
    if isinstance(value, dict) and field not in value:
        raise unknown(f"{path}: data.options.text_field", field, value)
