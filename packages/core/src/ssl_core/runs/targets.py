"""What a network is fine-tuned to say about each record: columns of the data as numbers.

Targets are float32 `[N, T]` with NaN where a record does not say. They come from the columns of a
manifest (or the JSON beside a member of a shard), or from the labels the source itself has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Record, Source
from ssl_core.data.heads import head_of, labels_of
from ssl_core.data.labels import encode_labels
from ssl_core.data.manifest import LABEL_COLUMNS
from ssl_core.errors import UserError, unknown

_YES = frozenset({"1", "true", "yes", "y"})
_NO = frozenset({"0", "false", "no", "n"})
_SEPARATORS = re.compile(r"[;|,]")


@dataclass(frozen=True)
class Targets:
    """`values` float32 `[N, T]`, NaN where unknown; `names` of the T columns (or of classes)."""

    values: Tensor
    names: tuple[str, ...]

    def rows(self) -> np.ndarray:
        """Records with at least one known value."""
        known: np.ndarray = (~self.values.isnan()).any(1).numpy()
        return np.flatnonzero(known)


def class_targets(source: Source, columns: Sequence[str]) -> Targets:
    """The number of each record's class, `[N, 1]`; `names` are the classes."""
    if len(columns) > 1:
        raise UserError(f"target: classes come from one column, not from {', '.join(columns)}")
    if columns:
        labels, names = encode_labels(_cells(source, columns)[columns[0]])
    else:
        labels, names = labels_of(source), list(source.classes or ())
    if labels is None:
        labels, names = np.full(len(source), -1), []
    values = torch.from_numpy(labels).to(torch.float32)
    return Targets(torch.where(values < 0, math.nan, values)[:, None], tuple(names or ()))


def label_targets(source: Source, columns: Sequence[str]) -> Targets:
    """Zeros and ones: several columns of yes and no, or one column that lists labels.

    Lists are separated by `;`, `|` or a comma (a separator alone: none of them), or are lists in
    Parquet and JSON. An empty cell is unknown. Without `columns` the source's label column lists.
    """
    cells = _cells(source, columns) if columns else {"label": _words(source)}
    if len(cells) == 1:
        ((name, column),) = cells.items()
        if not all(_binary(cell) is not None for cell in column if not _missing(cell)):
            return _listed(name, column)
    values = np.full((len(source), len(cells)), np.nan, np.float32)
    for at, (name, column) in enumerate(cells.items()):
        for row, cell in enumerate(column):
            if _missing(cell):
                continue
            value = _binary(cell)
            if value is None:
                raise UserError(
                    f"target: column {name!r} holds {cell!r}; with several columns each one is "
                    "0 or 1 (yes or no); name a single column that lists labels otherwise"
                )
            values[row, at] = value
    return Targets(torch.from_numpy(values), tuple(cells))


def number_targets(source: Source, columns: Sequence[str]) -> Targets:
    """Numbers of one or several columns; without `columns` of the source's label column."""
    cells = _cells(source, columns) if columns else {"label": _words(source)}
    values = np.full((len(source), len(cells)), np.nan, np.float32)
    for at, (name, column) in enumerate(cells.items()):
        for row, cell in enumerate(column):
            if _missing(cell):
                continue
            try:
                values[row, at] = float(cell)
            except (TypeError, ValueError) as error:
                raise UserError(f"target: column {name!r} holds {cell!r}, no number") from error
    values[~np.isfinite(values)] = np.nan
    return Targets(torch.from_numpy(values), tuple(cells))


def _listed(name: str, column: Sequence[Any]) -> Targets:
    """One column whose cells list the labels that apply."""
    sets: list[set[str] | None] = []
    for cell in column:
        parts = cell if isinstance(cell, (list, tuple)) else None
        if parts is None and not _missing(cell):
            parts = _SEPARATORS.split(str(cell))
        words = None if parts is None else {str(part).strip() for part in parts} - {""}
        sets.append(words)
    names = sorted({word for words in sets for word in words or ()})
    if not names:
        raise UserError(f"target: column {name!r} lists no label")
    values = np.full((len(column), len(names)), np.nan, np.float32)
    for row, words in enumerate(sets):
        if words is not None:
            values[row] = [label in words for label in names]
    return Targets(torch.from_numpy(values), tuple(names))


def _words(source: Source) -> list[str | None]:
    """The label column as it was written."""
    classes = source.classes
    if classes is None:
        raise UserError("target: the data has no label column; name one with --target COLUMN")
    return [None if label < 0 else str(classes[label]) for label in labels_of(source)]


def _cells(source: Source, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The cells of named columns, record by record."""
    out: dict[str, list[Any]] = {}
    for name in columns:
        if name in out:
            raise UserError(f"target: column {name!r} is named twice")
        out[name] = []
    records = [_told(source, row, columns) for row in range(len(source))]
    known = sorted({key for record in records[:1000] for key in record.meta})
    for name, column in out.items():
        if any(name in record.meta for record in records):
            column += [record.meta.get(name) for record in records]
        elif name.lower() in LABEL_COLUMNS and source.classes is not None:
            column += _words(source)
        else:
            raise unknown("target", name, known)
    return out


def _told(source: Source, row: int, columns: Sequence[str]) -> Record:
    """A record without its payload, or with it where only that tells the columns."""
    head = head_of(source, row)
    if all(name in head.meta or name.lower() in LABEL_COLUMNS for name in columns):
        return head
    return source[row]


def _missing(cell: Any) -> bool:
    """Empty cells, None and NaN."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return True
    return isinstance(cell, str) and not cell.strip()


def _binary(cell: Any) -> float | None:
    """1.0 or 0.0 for words of yes and no; None for anything else."""
    if isinstance(cell, (list, tuple)):
        return None
    word = str(cell).strip().lower().removesuffix(".0")
    return 1.0 if word in _YES else 0.0 if word in _NO else None
