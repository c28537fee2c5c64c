"""Records that are already in memory, or in one array file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Record
from ssl_core.data.heads import digest, evenly
from ssl_core.data.labels import encode_labels, label_of
from ssl_core.errors import UserError


class ArraySource:
    """Items of an array, tensor or list as records.

    Arguments: `data[i]` is the payload; `labels` are integers or words, one an item (missing:
    None or -1); `classes` names integer labels; `keys` default to the row numbers; `meta` holds
    columns of N values (`group` and `split` have a meaning to hold-outs).
    """

    def __init__(
        self,
        data: Any,
        labels: Sequence[Any] | np.ndarray | Tensor | None = None,
        *,
        classes: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        meta: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self.data = data
        self.keys = keys
        self.meta = dict(meta or {})
        values = labels.tolist() if isinstance(labels, (np.ndarray, Tensor)) else labels
        self.labels, self._classes = None, None
        if values is not None:
            self.labels, self._classes = encode_labels(values, classes=classes)
        for name, column in {"labels": values, "keys": keys, **self.meta}.items():
            if column is not None and len(column) != len(data):
                raise UserError(f"{name}: {len(column)} values for {len(data)} items")

    def __len__(self) -> int:
        return len(self.data)

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self._classes

    def head(self, index: int) -> Record:
        """Key, label and meta."""
        key = str(index) if self.keys is None else self.keys[index]
        meta = {name: column[index] for name, column in self.meta.items()}
        return Record(key, None, label_of(self.labels, index), meta)

    def __getitem__(self, index: int) -> Record:
        head = self.head(index)
        return Record(head.key, self.data[index], head.label, head.meta)

    def fingerprint(self) -> str:
        """A hash of keys, labels and up to 256 items, spread over the set."""
        labels = b"" if self.labels is None else self.labels.tobytes()
        items = (_content(self.data[i]) for i in evenly(len(self), 256))
        return digest([len(self), *(self.keys or ()), labels, *items])


def _content(item: Any) -> object:
    """What of an item enters the fingerprint; only the type of what has no plain bytes."""
    if isinstance(item, Tensor):
        item = item.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    if isinstance(item, (np.ndarray, np.generic)):
        return item.tobytes()
    if isinstance(item, (bytes, str, int, float)):
        return item
    return type(item).__qualname__


def read_arrays(path: Path) -> ArraySource:
    """A source from `.npy` (items along the first axis, memory-mapped) or `.npz`.

    An `.npz` holds the items under `data`, `images` or `x` and perhaps labels under `labels` or
    `y`. Raises `UserError` for other names and for arrays that would need unpickling.
    """
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"data: {path} cannot be read as NumPy arrays: {error}") from error
    if isinstance(loaded, np.ndarray):
        return ArraySource(loaded)
    with loaded:
        data = next((name for name in ("data", "images", "x") if name in loaded), None)
        if data is None:
            raise UserError(f"data: {path} has no array 'data'; it holds {list(loaded)}")
        labels = next((name for name in ("labels", "y") if name in loaded), None)
        return ArraySource(loaded[data], None if labels is None else loaded[labels])
