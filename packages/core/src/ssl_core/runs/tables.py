"""Embeddings as files: an array with its keys, or one table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_core.evaluation.embed import Embedding
from ssl_core.files import atomic_path, atomic_write


def check_table(path: Path) -> None:
    """Raises `UserError` where `write_embedding` could not write."""
    if path.suffix not in {".npy", ".parquet"}:
        raise UserError(f"out: {str(path)!r} must end in .npy or .parquet")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError(
            "out: Parquet needs pyarrow; `pip install 'ssl-core[table]'`, or write a .npy file"
        )


def write_embedding(found: Embedding, path: Path) -> list[Path]:
    """Writes vectors, keys and labels; returns the files.

    `x.npy` is float32 `[N, D]`, with `x.keys.txt` (one key a line) and, where there are labels,
    `x.labels.npy` (int64, -1 where missing) beside it. `x.parquet` has the columns key, label
    and embedding.
    """
    check_table(path)
    if path.suffix == ".parquet":
        return [_parquet(found, path)]
    files = [path, path.with_suffix(".keys.txt")]
    with atomic_path(path) as temporary:
        np.save(temporary, found.features.numpy())
    atomic_write(files[1], "".join(_one_line(key) + "\n" for key in found.keys))
    if bool((found.labels >= 0).any()):
        files.append(path.with_suffix(".labels.npy"))
        with atomic_path(files[2]) as temporary:
            np.save(temporary, found.labels.numpy())
    return files


def _one_line(key: str) -> str:
    """A key never breaks the line count: backslash and line ends are escaped."""
    return key.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _parquet(found: Embedding, path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = found.features.shape[1]
    flat = pa.array(found.features.numpy().ravel())
    labels = [None if label < 0 else label for label in found.labels.tolist()]
    table = pa.table(
        {
            "key": pa.array(found.keys, pa.string()),
            "label": pa.array(labels, pa.int64()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, width),
        }
    )
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)
    return path
