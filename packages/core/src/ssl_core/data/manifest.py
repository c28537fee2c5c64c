"""Tables that list files: CSV, TSV, Parquet, JSON lines; labels, groups and any other column."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_core.data.files import FileSource, existing
from ssl_core.data.labels import encode_labels
from ssl_core.errors import UserError

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path")
LABEL_COLUMNS = ("label", "class", "target", "category", "y")


def read_manifest(path: Path) -> FileSource:
    """A source from a table with one file a row.

    The column `path` (or another of `PATH_COLUMNS`) is relative to the table's folder; `label`
    (or another of `LABEL_COLUMNS`) holds numbers or words and may have gaps. All other columns
    become `Record.meta`, where `group` and `split` steer hold-outs. Column names ignore case.
    Raises `UserError` naming the columns, or the line, that is at fault.
    """
    columns = read_table(path)
    by_lower = {name.lower(): name for name in columns}
    path_column = next((by_lower[name] for name in PATH_COLUMNS if name in by_lower), None)
    if path_column is None:
        raise _no_path_column(path, list(columns))
    names = [str(cell).strip() if cell is not None else "" for cell in columns.pop(path_column)]
    if not names:
        raise UserError(f"data: {path} has a header and no rows")
    if "" in names:
        raise UserError(f"data: row {names.index('') + 1} of {path} has no {path_column}")
    label_column = next((by_lower[name] for name in LABEL_COLUMNS if name in by_lower), None)
    labels, classes = None, None
    if label_column is not None:
        labels, classes = encode_labels(columns.pop(label_column))
    meta = {
        name.lower() if name.lower() in ("group", "split") else name: column
        for name, column in columns.items()
    }
    return existing(FileSource(path.parent, names, labels=labels, classes=classes, meta=meta), path)


def read_table(path: Path) -> dict[str, Sequence[Any]]:
    """The columns of a CSV, TSV, Parquet or JSON lines file by name.

    Cells of CSV and TSV are words or None; what a line of JSON lacks is None. Raises `UserError`
    naming the line of a text file that does not fit.
    """
    match path.suffix.lower():
        case ".parquet":
            return _read_parquet(path)
        case ".jsonl" | ".ndjson":
            return _read_jsonl(path)
        case _:
            return _read_csv(path)


def _read_jsonl(path: Path) -> dict[str, Sequence[Any]]:
    """Columns of whatever JSON holds: a caption may be a list of captions."""
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise UserError(f"data: line {number} of {path} is no JSON object")
                rows.append(row)
    except UnicodeDecodeError as error:
        raise UserError(f"data: {path} is not in UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"data: line {number} of {path} is not JSON: {error}") from error
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _no_path_column(path: Path, columns: Sequence[str]) -> UserError:
    near = [
        column
        for column in columns
        if difflib.get_close_matches(column.lower(), PATH_COLUMNS, n=1, cutoff=0.6)
    ]
    hint = f"; rename {near[0]!r} to 'path'?" if near else "; name the column of files 'path'"
    return UserError(f"data: {path} has no column 'path'; its columns are {list(columns)}{hint}")


def _read_csv(path: Path) -> dict[str, Sequence[Any]]:
    """Columns of words. The delimiter is a tab in `.tsv`, else the one the header shows."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter=_delimiter(path, header), strict=True)
            names = [name.strip() for name in next(rows, [])]
            if len(set(names)) < len(names):
                raise UserError(f"data: {path} names a column twice: {names}")
            columns: list[list[Any]] = [[] for _ in names]
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    raise UserError(
                        f"data: line {rows.line_num} of {path} has {len(row)} cells, the header "
                        f"{len(names)}; quote cells that hold the delimiter"
                    )
                for column, cell in zip(columns, row, strict=True):
                    column.append(cell if cell != "" else None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"data: {path} is not a table in UTF-8: {error}") from error
    return dict(zip(names, columns, strict=True))


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=header.count)


def _read_parquet(path: Path) -> dict[str, Sequence[Any]]:
    """Columns with their own types."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UserError(
            f"data: reading {path} needs pyarrow; pip install 'ssl-core[table]'"
        ) from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise UserError(f"data: {path} cannot be read as Parquet: {error}") from error
    columns: Mapping[str, Sequence[Any]] = table.to_pydict()
    return dict(columns)
