"""Embeddings as files: an array with its keys, or one table."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_core.evaluation.embed import Embedding
from ssl_core.files import atomic_path


def check_table(path: Path) -> None:
    """Raises `UserError` where `write_embedding` could not write."""
    if path.suffix not in {".npy", ".parquet"}:
        raise UserError(f"out: {str(path)!r} must end in .npy or .parquet")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(
            "out: Parquet needs pyarrow; `pip install 'ssl-core[table]'`, or write a .npy file"
        )


def write_embedding(parts: Iterable[Embedding], path: Path, *, count: int, dim: int) -> list[Path]:
    """Writes vectors, keys and labels of `count` records, part after part; returns the files.

    `x.npy` is float32 `[N, D]`, with `x.keys.txt` (one key a line) and, where there are labels,
    `x.labels.npy` (int64, -1 where missing) beside it. `x.parquet` has the columns key, label
    and embedding.
    """
    check_table(path)
    if path.suffix == ".parquet":
        return [_parquet(parts, path, dim)]
    files = [path, path.with_suffix(".keys.txt")]
    labels = [np.empty(0, np.int64)]
    with atomic_path(path) as vectors, atomic_path(files[1]) as keys:
        # A memory map of no rows does not exist; the file of an empty array does.
        shape = (count, dim)
        if count == 0:
            np.save(vectors, np.empty(shape, np.float32))
        else:
            rows = np.lib.format.open_memmap(vectors, "w+", np.float32, shape)
        at = 0
        with keys.open("w", encoding="utf-8", newline="") as lines:
            for part in parts:
                if len(part):
                    rows[at : at + len(part)] = part.features.numpy()
                at += len(part)
                lines.writelines(_one_line(key) + "\n" for key in part.keys)
                labels.append(part.labels.numpy())
        if count:
            rows.flush()
            del rows
    known = np.concatenate(labels)
    if (known >= 0).any():
        files.append(path.with_suffix(".labels.npy"))
        with atomic_path(files[2]) as temporary:
            np.save(temporary, known)
    return files


def _one_line(key: str) -> str:
    """A key never breaks the line count: backslash and line ends are escaped."""
    return key.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _parquet(parts: Iterable[Embedding], path: Path, width: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    vectors = pa.list_(pa.float32(), width)
    schema = pa.schema([("key", pa.string()), ("label", pa.int64()), ("embedding", vectors)])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for part in parts:
            flat = pa.array(part.features.numpy().ravel(), pa.float32())
            labels = [None if label < 0 else label for label in part.labels.tolist()]
            columns = [
                pa.array(part.keys, pa.string()),
                pa.array(labels, pa.int64()),
                pa.FixedSizeListArray.from_arrays(flat, width),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return path
