"""Text in a column: Parquet files, and data sets that Hugging Face's `datasets` saved.

Rows are read from memory-mapped Arrow files, so that a table may be larger than memory. A saved
data set consists of such files and is read without its library; Parquet has to be unpacked, and is
rewritten once, group by group, into the cache folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.batch import Record
from ssl_core.data.heads import digest
from ssl_core.data.labels import encode_labels
from ssl_core.errors import CorruptSample, UserError, unknown
from ssl_core.files import atomic_path, read_json
from ssl_text.options import TextOptions
from ssl_text.sources.compressed import made_once

_ROWS = 4096
"""Rows of a Parquet file rewritten at a time."""


@dataclass(frozen=True)
class Column:
    """One Arrow file; `name` starts the keys of its rows."""

    path: Path
    name: str
    split: str | None = None


class ColumnSource:
    """Rows of Arrow files, mapped when a process first reads them; keys are "name:row"."""

    def __init__(
        self,
        parts: Sequence[Column],
        options: TextOptions,
        *,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.parts = list(parts)
        self.options = options
        self._given = classes
        self._tables = [_mapped(part.path) for part in self.parts]
        for table, part in zip(self._tables, self.parts, strict=True):
            _check_text(table.schema, options.text_field, part.name)
        self._ends = np.cumsum([table.num_rows for table in self._tables], dtype=np.int64)
        self._groups = [_column(table, options.group_field) for table in self._tables]
        values: list[Any] = []
        for table in self._tables:
            labels = _column(table, options.label_field)
            values += [None] * table.num_rows if labels is None else labels.to_pylist()
        self._labels, self._classes = encode_labels(values, classes=classes)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.parts, self.options, self._given)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self._classes

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each document, int64 `[N]`, 0 where there is none."""
        import pyarrow.compute as pc

        texts = (table[self.options.text_field] for table in self._tables)
        sizes = [pc.fill_null(pc.binary_length(text), 0).to_numpy() for text in texts]
        return np.concatenate(sizes).astype(np.int64)

    def head(self, index: int) -> Record:
        """Key, label and meta."""
        part, row = self._find(index)
        meta: dict[str, Any] = {}
        groups = self._groups[part]
        group = None if groups is None else groups[row].as_py()
        if group is not None:
            meta["group"] = str(group)
        split = self.parts[part].split
        if split is not None:
            meta["split"] = split
        label = -1 if self._labels is None else int(self._labels[index])
        return Record(
            f"{self.parts[part].name}:{row + 1}", None, None if label < 0 else label, meta
        )

    def __getitem__(self, index: int) -> Record:
        head = self.head(index)
        part, row = self._find(index)
        text = self._tables[part][self.options.text_field][row].as_py()
        if text is None:
            raise CorruptSample(f"{head.key}: no text in column {self.options.text_field!r}")
        return Record(head.key, text, head.label, head.meta)

    def fingerprint(self) -> str:
        """A hash of the files' names and sizes and of their numbers of rows."""
        counts = (table.num_rows for table in self._tables)
        facts = [
            (p.name, p.path.stat().st_size, n) for p, n in zip(self.parts, counts, strict=True)
        ]
        return digest([self.options.text_field, *(fact for row in facts for fact in row)])

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        return part, index - int(self._ends[part]) + self._tables[part].num_rows


def _reopened(
    parts: Sequence[Column], options: TextOptions, classes: Sequence[str] | None
) -> ColumnSource:
    return ColumnSource(parts, options, classes=classes)


def open_parquet(
    root: Path, names: Sequence[str], splits: Sequence[str] | None, options: TextOptions
) -> ColumnSource:
    """Parquet files, their text, label and group columns rewritten once as Arrow."""
    parts = [
        Column(_rewritten(root / name, options), name, None if splits is None else splits[i])
        for i, name in enumerate(names)
    ]
    return ColumnSource(parts, options)


def open_saved(folder: Path, options: TextOptions) -> ColumnSource:
    """A `Dataset` or `DatasetDict` that `save_to_disk` wrote."""
    several = folder / "dataset_dict.json"
    try:
        splits = read_json(several)["splits"] if several.is_file() else [None]
        parts, classes = [], None
        for split in splits:
            place = folder if split is None else folder / split
            files = [entry["filename"] for entry in read_json(place / "state.json")["_data_files"]]
            facts = read_json(place / "dataset_info.json").get("features") or {}
            classes = classes or (facts.get(options.label_field) or {}).get("names")
            for number, file in enumerate(files):
                name = split or folder.name
                name = name if len(files) == 1 else f"{name}-{number}"
                parts.append(Column(place / file, name, split))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"data: {folder} is no whole saved data set: {error}") from error
    return ColumnSource(parts, options, classes=classes)


def parquet_columns(path: Path) -> list[str]:
    """The names of a Parquet file's columns."""
    names: list[str] = _parquet(path).schema_arrow.names
    return names


def _parquet(path: Path) -> Any:
    _arrow(path)
    from pyarrow import ArrowException, parquet

    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise UserError(f"data: {path} cannot be read as Parquet: {error}") from error


def _rewritten(path: Path, options: TextOptions) -> Path:
    fields = (options.text_field, options.label_field, options.group_field)
    place = made_once(path, "columns", f"-{digest(fields)}.arrow")
    if place.is_file():
        return place
    file = _parquet(path)
    _check_text(file.schema_arrow, options.text_field, str(path))
    import pyarrow

    columns = [name for name in dict.fromkeys(fields) if name in file.schema_arrow.names]
    schema = pyarrow.schema([file.schema_arrow.field(name) for name in columns])
    try:
        with (
            atomic_path(place) as temporary,
            pyarrow.OSFile(str(temporary), "wb") as out,
            pyarrow.ipc.new_stream(out, schema) as writer,
        ):
            for batch in file.iter_batches(_ROWS, columns=columns):
                writer.write_batch(batch.select(columns).cast(schema))
    except pyarrow.ArrowException as error:
        raise UserError(f"data: {path} is damaged: {error}") from error
    return place


def _mapped(path: Path) -> Any:
    pyarrow = _arrow(path)
    try:
        stream = pyarrow.memory_map(str(path), "r")
        try:
            return pyarrow.ipc.open_stream(stream).read_all()
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(stream).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"data: {path} cannot be read as Arrow: {error}") from error


def _check_text(schema: Any, field: str, where: str) -> None:
    import pyarrow.types as kinds

    if field not in schema.names:
        raise unknown(f"{where}: data.options.text_field", field, schema.names)
    kind = schema.field(field).type
    if not (kinds.is_string(kind) or kinds.is_large_string(kind)):
        raise UserError(f"data: column {field!r} of {where} holds {kind}, not text")


def _column(table: Any, name: str) -> Any:
    return table[name] if name in table.column_names else None


def _arrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise UserError(
            f"data: reading {path} needs pyarrow; pip install 'ssl-core[table]'"
        ) from error
    return pyarrow
