"""Labels and splits as people write them: words or numbers in a column, names of folders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_core.errors import UserError

SPLITS = {
    "train": "train",
    "training": "train",
    "unlabeled": "train",
    "unlabelled": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Names under which data sets keep their parts, and the part each one means."""


def encode_labels(
    values: Sequence[Any], *, classes: Sequence[str] | None = None
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels as int64 `[N]` (-1 where missing) and the class names; (None, None) without any.

    `values` are integers, words or None. Missing are None, NaN, the empty word and -1. Classes are
    the distinct values in order: numbers by size, words by alphabet. With `classes` given, words
    must be among them and integers index them; raises `UserError` otherwise.
    """
    cells = [_cell(value) for value in values]
    if classes is not None:
        return _given(cells, list(classes)), list(classes)
    distinct = {cell for cell in cells if cell is not None}
    if not distinct:
        return None, None
    try:
        ordered: list[Any] = sorted(distinct, key=int)
    except ValueError:
        ordered = sorted(distinct, key=str)
    number = {value: i for i, value in enumerate(ordered)}
    labels = [-1 if cell is None else number[cell] for cell in cells]
    return np.array(labels, np.int64), [str(value) for value in ordered]


def label_of(labels: np.ndarray | None, index: int) -> int | None:
    """The label of one record as `Record` has it: None where there is none."""
    label = -1 if labels is None else int(labels[index])
    return None if label < 0 else label


def _cell(value: Any) -> str | None:
    """One label as a word, or None when it is missing."""
    if isinstance(value, (bytes, np.bytes_)):
        value = value.decode()
    if value is None or value != value:  # NaN is how tables spell "missing"
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    word = str(value).strip()
    return None if word in ("", "-1") else word


def _given(cells: list[str | None], classes: list[str]) -> np.ndarray:
    number = {name: i for i, name in enumerate(classes)}
    out = np.full(len(cells), -1, np.int64)
    for row, cell in enumerate(cells):
        if cell is None:
            continue
        at = number.get(cell)
        if at is None and cell.isdecimal() and int(cell) < len(classes):
            at = int(cell)
        if at is None:
            raise UserError(f"labels: row {row} has {cell!r}, which is none of {classes[:20]}")
        out[row] = at
    return out


def from_paths(
    names: Sequence[str],
) -> tuple[np.ndarray | None, list[str] | None, list[str] | None]:
    """Labels, classes and splits that the folders of relative posix paths spell out.

    Folders shared by all paths are skipped. When the first folders that differ are parts of a data
    set (`train/`, `val/`, ...), they become splits and the next level holds the classes. Classes
    need at least two folders; files beside class folders have no label, files beside split folders
    belong to train.
    """
    # A million files lie in a few folders: each folder is looked at once.
    places = [name.rpartition("/")[0] for name in names]
    folders = {place: tuple(place.split("/")) if place else () for place in set(places)}
    distinct = set(folders.values())
    skip = _shared(distinct)
    firsts = {folder[skip] for folder in distinct if len(folder) > skip}
    parts = {SPLITS.get(first.lower()) for first in firsts}
    splits = None
    if len(parts) > 1 and None not in parts and "train" in parts:
        part = {
            p: SPLITS[f[skip].lower()] if len(f) > skip else "train" for p, f in folders.items()
        }
        splits = [part[place] for place in places]
        skip += 1
    classes = sorted({folder[skip] for folder in distinct if len(folder) > skip})
    if len(classes) < 2:
        return None, None, splits
    number = {name: i for i, name in enumerate(classes)}
    label = {p: number[f[skip]] if len(f) > skip else -1 for p, f in folders.items()}
    return np.array([label[place] for place in places], np.int64), classes, splits


def _shared(folders: set[tuple[str, ...]]) -> int:
    """How many leading folders all paths have in common."""
    first, last = min(folders), max(folders)  # tuples sort so that these two differ earliest
    shared = 0
    for a, b in zip(first, last, strict=False):
        if a != b:
            break
        shared += 1
    return shared
