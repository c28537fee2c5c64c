"""Looking at records without reading their payload.

A source may offer `head(index) -> Record` with `payload=None`: splitting a million records by
key, or naming one that cannot be read, must not touch a million files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

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


def labels_of(source: Source) -> np.ndarray:
    """Every label, int64 `[N]`, -1 where missing."""
    labels = (head_of(source, i).label for i in range(len(source)))
    return np.fromiter((-1 if x is None else x for x in labels), np.int64, len(source))


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
