"""Columns of numbers from text files, fast when they are right, with the line when they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl_core.errors import UserError


def read_columns(path: Path, *, dtype: type, columns: int | None = None) -> np.ndarray:
    """A comma-separated file without header as `[lines, columns]`; blank lines are skipped.

    Raises `UserError` naming the file and the line for a value that is not a `dtype`, for lines
    of unequal length, and where `columns` is given, for another number of columns.
    """
    if path.stat().st_size < 4096 and not path.read_bytes().strip():
        return np.zeros((0, columns or 1), dtype=dtype)
    try:
        values: np.ndarray = np.loadtxt(path, dtype=dtype, delimiter=",", comments=None, ndmin=2)
    except (ValueError, OverflowError, UnicodeDecodeError) as error:
        raise _located(path, dtype, columns) from error
    if columns is not None and values.shape[1] != columns:
        raise _located(path, dtype, columns)
    return values


def _located(path: Path, dtype: type, columns: int | None) -> UserError:
    """The error for the first bad line of `path`."""
    kind = "whole numbers" if np.issubdtype(dtype, np.integer) else "numbers"
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split(",")
        columns = len(parts) if columns is None else columns
        if len(parts) != columns:
            return UserError(
                f"{path}, line {number}: expected {columns} comma-separated {kind}, "
                f"got {len(parts)}: {line[:80]!r}"
            )
        for part in parts:
            try:
                np.dtype(dtype).type(part.strip())
            except (ValueError, OverflowError):
                return UserError(
                    f"{path}, line {number}: {part.strip()[:40]!r} is not one of {kind}"
                )
    return UserError(f"{path}: cannot be read as columns of {kind}")
