"""Decides which source reads a path: by its name, its header and what a folder holds."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl_core.batch import Record, Source
from ssl_core.data import FileSource, limited, open_source
from ssl_core.data.folder import list_folder
from ssl_core.data.hub import is_saved_dataset
from ssl_core.data.labels import from_paths
from ssl_core.errors import UserError, unknown
from ssl_text.options import TextOptions
from ssl_text.sources.columns import open_parquet, open_saved, parquet_columns
from ssl_text.sources.compressed import plain, with_packed
from ssl_text.sources.files import Part, SpanSource
from ssl_text.sources.passage import check_encoding
from ssl_text.sources.rows import DELIMITERS, jsonl_source, table_header, table_source
from ssl_text.sources.spans import Spans, entries, lines, paragraphs, whole

PLAIN = (".txt", ".text", ".md", ".rst", ".py")
JSONL = (".jsonl", ".ndjson")
FASTA = (".fasta", ".fa", ".faa", ".fas")
PARQUET = (".parquet",)
CORE_FORMATS = ("list", "manifest", "tar", "hub")
FORMATS = ("auto", "lines", "paragraphs", "files", "jsonl", "table", "parquet", "fasta", "saved")
_UNITS: dict[str, Callable[[Path], Spans]] = {
    "lines": lines,
    "paragraphs": paragraphs,
    "files": whole,
    "fasta": entries,
}
_OURS = with_packed((*PLAIN, *JSONL, *DELIMITERS, *PARQUET, *FASTA))
_NOTHING = Spans(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


def open_text(path: Path, *, format: str, options: TextOptions) -> Source:
    """The documents at `path`.

    `format` "auto" takes `.jsonl` and `.ndjson` (and a single `.json` of rows) as JSON lines,
    `.csv` and `.tsv` as tables, `.parquet` as Parquet, `.fasta` (`.fa`, `.faa`, `.fas`) as
    sequences, any other single file as one document a line; all but Parquet may end in `.gz` or
    `.zst` besides. A folder of one of these is read as one source; a folder of plain text files
    has one document a file, with the names of sub-folders as classes; a folder that `datasets`
    saved is read as it is ("saved"). Folders named train and test (or val) become the two sides
    of the hold-out. Raises `UserError` when there is nothing to read.
    """
    if format not in FORMATS:
        raise unknown("data.format", format, FORMATS)
    if not path.exists():
        raise UserError(f"data.path: {str(path)!r} does not exist")
    if format == "saved" or (format == "auto" and is_saved_dataset(path)):
        return open_saved(path, options)
    kind, suffixes = _detect(path, format)
    names = [path.name] if path.is_file() else list_folder(str(path), suffixes).names
    if not names:
        raise UserError(f"data.path: no file ending in {', '.join(suffixes)} in {str(path)!r}")
    source = _open(kind, path.parent if path.is_file() else path, names, options)
    if len(source) == 0:
        raise UserError(f"data.path: {str(path)!r} holds no documents (every line is blank)")
    return source


def open_any(path: str, *, format: str, options: TextOptions, limit: int | None) -> Source:
    """Our own formats, and the core's: tar shards, lists and tables of files, `hf:` data sets."""
    place = Path(path).expanduser()
    if format in FORMATS and not (format == "auto" and _is_for_core(path, place, options)):
        return limited(open_text(place, format=format, options=options), limit)
    if format not in (*FORMATS, *CORE_FORMATS):
        raise unknown("data.format", format, (*FORMATS, *CORE_FORMATS))
    source = open_source(path, suffixes=PLAIN, format=format)
    return limited(PathSource(source) if isinstance(source, FileSource) else source, limit)


def _is_for_core(path: str, place: Path, options: TextOptions) -> bool:
    if path.startswith("hf:") or place.name.endswith((".tar", ".tar.gz", ".tgz")):
        return True
    if place.is_dir():
        return bool(list_folder(str(place), (".tar",)).names) and not _holds(place, _OURS)
    return (not place.exists() and glob.has_magic(path)) or _is_manifest(place, options)


class PathSource:
    """A source of files whose payload is a `Path`, because here a string is a document."""

    def __init__(self, source: FileSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self.source.classes

    def head(self, index: int) -> Record:
        """Key, label and meta."""
        return self.source.head(index)

    def __getitem__(self, index: int) -> Record:
        record = self.source[index]
        return replace(record, payload=Path(record.payload))

    def fingerprint(self) -> str:
        """That of the files."""
        return self.source.fingerprint()


def _is_manifest(path: Path, options: TextOptions) -> bool:
    """Whether a table lists files (a column `path`) instead of holding the texts themselves."""
    if path.suffix.lower() not in (*DELIMITERS, *PARQUET) or not path.is_file():
        return False
    header = parquet_columns(path) if path.suffix.lower() in PARQUET else table_header(path)
    return "path" in header and options.text_field not in header


def _detect(path: Path, format: str) -> tuple[str, Sequence[str]]:
    """The kind of source and the suffixes it takes."""
    suffixes: dict[str, Sequence[str]] = {
        "jsonl": with_packed(JSONL),
        "table": with_packed(tuple(DELIMITERS)),
        "parquet": PARQUET,
        "fasta": with_packed(FASTA),
    }
    if format != "auto":
        return format, suffixes.get(format, with_packed(PLAIN))
    for kind, wanted in suffixes.items():
        if _holds(path, wanted):
            return kind, wanted
    if path.is_file() and path.suffix.lower() == ".json":
        return _json_lines(path), (".json",)
    return ("lines" if path.is_file() else "files"), with_packed(PLAIN)


def _json_lines(path: Path) -> str:
    """The kind of a `.json` file of one object a line; one value over all of it is refused."""
    with path.open("rb") as file:
        first = next(
            (line for line in iter(lambda: file.readline(1 << 20), b"") if line.strip()), b""
        )
    text = first.strip()
    if not text.startswith(b"{") or not text.endswith(b"}"):
        raise UserError(
            f"data: {path} is one JSON value; write one object a line (.jsonl), for instance with "
            f"`jq -c '.[]' {path.name} > {path.stem}.jsonl`"
        )
    return "jsonl"


def _holds(path: Path, suffixes: Sequence[str]) -> bool:
    if path.is_file():
        return path.name.lower().endswith(tuple(suffixes))
    return bool(list_folder(str(path), suffixes).names)


def _open(kind: str, root: Path, names: Sequence[str], options: TextOptions) -> Source:
    labels, classes, splits = from_paths(names)
    if kind == "parquet":
        return open_parquet(root, names, splits, options)
    parts = [
        Part(plain(root / name), name, _NOTHING, split=None if splits is None else splits[i])
        for i, name in enumerate(names)
    ]
    if kind != "files":
        for part in parts:
            check_encoding(part.path)
    if kind == "jsonl":
        return jsonl_source(parts, options)
    if kind == "table":
        return table_source(parts, options)
    return _plain_source(parts, kind, labels, classes)


def _plain_source(
    parts: Sequence[Part], unit: str, labels: np.ndarray | None, classes: Sequence[str] | None
) -> SpanSource:
    """Plain text; sub-folders name the classes. Documents of one file stay on one side."""
    indexed = []
    for number, part in enumerate(parts):
        spans = _UNITS[unit](part.path)
        label = None if labels is None else np.full(len(spans), labels[number])
        group = None if len(parts) == 1 else np.full(len(spans), number)
        if unit == "fasta" and len(spans) == 0:
            raise UserError(f"data: {part.name} has no line that begins with '>'; it is no FASTA")
        made = replace(part, spans=spans, label=label, group=group, fasta=unit == "fasta")
        indexed.append(made)
    groups = [part.name for part in parts]
    return SpanSource(indexed, classes=classes, groups=groups, keyed_by_file=unit == "files")
