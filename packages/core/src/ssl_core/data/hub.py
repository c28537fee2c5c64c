"""Hugging Face data sets by random access (needs the extra `hub`)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.batch import Record
from ssl_core.data.heads import digest
from ssl_core.data.labels import encode_labels, label_of
from ssl_core.errors import UserError, unknown

_PAYLOADS = ("image", "img", "audio", "video", "text", "sentence", "data")
_LABELS = ("label", "labels", "fine_label", "class", "target")


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or (path / "dataset_info.json").is_file()


class HubSource:
    """Rows of one or more splits; `Record.payload` is a column, undecoded where it holds files.

    Arguments: `splits` are `datasets.Dataset` objects by name (with several, each record's
    `meta["split"]` tells its own); `column` holds the samples and `label` the labels (by default
    the first column of a known name or of an image or audio type). Other columns become meta.
    """

    def __init__(
        self,
        splits: dict[str, Any],
        *,
        name: str,
        column: str | None = None,
        label: str | None = None,
    ) -> None:
        self.name = name
        first = next(iter(splits.values()))
        self.column = _choose("column", column, first.column_names, _payload_column(first))
        self.label = _choose("label", label, first.column_names, _named(first, _LABELS))
        if self.column is None:
            raise UserError(f"data: {name} has no known sample column in {first.column_names}")
        self._splits = [(split, _undecoded(rows)) for split, rows in splits.items()]
        self._ends = np.cumsum([len(rows) for _, rows in self._splits])
        self.labels, self._classes = self._read_labels()

    def _read_labels(self) -> tuple[np.ndarray | None, Sequence[str] | None]:
        if self.label is None:
            return None, None
        values = [value for _, rows in self._splits for value in rows[self.label]]
        names = getattr(self._splits[0][1].features[self.label], "names", None)
        return encode_labels(values, classes=names)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self._classes

    def _place(self, index: int) -> tuple[str, Any, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        split, rows = self._splits[part]
        return split, rows, index - (int(self._ends[part - 1]) if part else 0)

    def head(self, index: int) -> Record:
        """Key, label and split."""
        split, _, row = self._place(index)
        return Record(f"{split}/{row}", None, label_of(self.labels, index), {"split": split})

    def __getitem__(self, index: int) -> Record:
        head = self.head(index)
        _, rows, row = self._place(index)
        cells = dict(rows[row])
        payload = cells.pop(self.column)
        if isinstance(payload, dict) and "bytes" in payload:
            payload = payload["bytes"] if payload["bytes"] is not None else payload["path"]
        cells.pop(self.label, None)
        return Record(head.key, payload, head.label, {**cells, **head.meta})

    def fingerprint(self) -> str:
        """A hash of the name and of each split's own fingerprint."""
        prints = (f"{split} {rows._fingerprint}" for split, rows in self._splits)
        return digest([self.name, self.column, *prints])


def open_hub(text: str, *, column: str | None = None, label: str | None = None) -> HubSource:
    """A source from `hf:NAME[@CONFIG][:SPLIT]`, or from a folder `save_to_disk` wrote.

    Raises `UserError` when `datasets` is missing, or the name, split or column is unknown.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"data: reading {text} needs the datasets library; pip install 'ssl-core[hub]'"
        ) from error
    name, wanted = text.removeprefix("hf:"), None
    try:
        if not os.path.isdir(name):
            name, _, wanted = name.partition(":")
        if os.path.isdir(name):
            loaded = datasets.load_from_disk(name)
        else:
            repository, _, config = name.partition("@")
            loaded = datasets.load_dataset(repository, config or None)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"data: {text} cannot be loaded: {error}") from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    if wanted:
        if wanted not in splits:
            raise unknown("split", wanted, splits)
        splits = {wanted: splits[wanted]}
    return HubSource(splits, name=name, column=column, label=label)


def _choose(
    what: str, wanted: str | None, columns: Sequence[str], default: str | None
) -> str | None:
    if wanted is not None and wanted not in columns:
        raise unknown(what, wanted, columns)
    return default if wanted is None else wanted


def _named(rows: Any, names: Sequence[str]) -> str | None:
    by_lower = {column.lower(): column for column in rows.column_names}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _payload_column(rows: Any) -> str | None:
    """The first column whose type holds files, else the first of a usual name."""
    for name, feature in rows.features.items():
        if type(feature).__name__ in ("Image", "Audio", "Video"):
            return str(name)
    return _named(rows, _PAYLOADS)


def _undecoded(rows: Any) -> Any:
    """The same rows with files as bytes or paths, so that our decoders read them."""
    for name, feature in rows.features.items():
        if type(feature).__name__ in ("Image", "Audio", "Video"):
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows
