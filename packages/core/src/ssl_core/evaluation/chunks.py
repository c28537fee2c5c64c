"""Row chunks, so that no evaluation ever holds a whole pairwise matrix."""

from __future__ import annotations

from collections.abc import Iterator

ENTRIES = 1 << 24


def row_chunks(rows: int, columns: int, *, entries: int = ENTRIES) -> Iterator[slice]:
    """Slices over `rows` such that a chunk times `columns` stays within `entries` numbers."""
    size = max(1, entries // max(1, columns))
    for start in range(0, rows, size):
        yield slice(start, min(rows, start + size))
