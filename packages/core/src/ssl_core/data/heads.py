"""Looking at records without reading their payload.

A source may offer `head(index) -> Record` with `payload=None`: splitting a million records by
key, or naming one that cannot be read, must not touch a million files. Where a source holds its
heads in columns anyway, `heads() -> Heads` gives all of them at once, which spares a million
objects.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_core.batch import Record, Source


def head_of(source: Source, index: int) -> Record:
    """Key, label and meta of a record; the payload only where the source has no `head`."""
    head = getattr(source, "head", None)
    record: Record = source[index] if head is None else head(index)
    return record


def beside(record: Record, name: str) -> str:
    """The path of a file that a column of the record's manifest names, relative like its own."""
    path = str(record.payload)
    root = path[: -len(record.key)] if path.endswith(record.key) else os.path.dirname(path)
    return os.path.join(root, name)


@dataclass(frozen=True)
class Heads:
    """The heads of all N records in columns; a column is None where no record has the fact."""

    keys: Sequence[str]
    labels: np.ndarray | None = None
    """int64 `[N]`, -1 where missing."""
    groups: Sequence[Any] | None = None
    splits: Sequence[Any] | None = None

    def at(self, rows: np.ndarray) -> Heads:
        """Those of the chosen records."""

        def picked(column: Sequence[Any] | None) -> Sequence[Any] | None:
            return None if column is None else [column[row] for row in rows.tolist()]

        keys = picked(self.keys) or []
        labels = None if self.labels is None else self.labels[rows]
        return Heads(keys, labels, picked(self.groups), picked(self.splits))


def heads_of(source: Source) -> Heads:
    """Key, label, group and split of every record."""
    given = getattr(source, "heads", None)
    if given is not None:
        whole: Heads = given()
        return whole
    heads = [head_of(source, i) for i in range(len(source))]
    labels = np.array([-1 if head.label is None else head.label for head in heads], np.int64)
    groups, splits = ([head.meta.get(name) for head in heads] for name in ("group", "split"))
    return Heads([head.key for head in heads], labels, groups, splits)


def labels_of(source: Source) -> np.ndarray:
    """Every label, int64 `[N]`, -1 where missing."""
    labels = heads_of(source).labels
    return np.full(len(source), -1, np.int64) if labels is None else labels


def digest(parts: Iterable[object]) -> str:
    """16 hexadecimal digits that stand for the parts, in order; bytes count as they are."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def evenly(n: int, count: int) -> list[int]:
    """At most `count` indices spread over 0..n-1, ends included."""
    if n <= count:
        return list(range(n))
    return [i * (n - 1) // (count - 1) for i in range(count)]
