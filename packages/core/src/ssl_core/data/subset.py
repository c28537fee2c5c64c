"""Parts of a source: chosen rows, a limit, a hold-out that stays put when files are added."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from ssl_core.batch import Record, Source
from ssl_core.data.heads import Heads, digest, head_of, heads_of
from ssl_core.data.labels import SPLITS
from ssl_core.errors import UserError
from ssl_core.rng import shuffled


class Subset:
    """The records of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self.source = source
        self.indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def classes(self) -> Sequence[str] | None:
        """The classes of the whole source."""
        return self.source.classes

    def head(self, index: int) -> Record:
        """Key, label and meta."""
        return head_of(self.source, int(self.indices[index]))

    def heads(self) -> Heads:
        """Key, label, group and split of every chosen record."""
        return heads_of(self.source).at(self.indices)

    @property
    def lengths(self) -> np.ndarray | None:
        """Those of the chosen records, where the source knows lengths."""
        whole = getattr(self.source, "lengths", None)
        return None if whole is None else whole[self.indices]

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.indices[index])]

    def fingerprint(self) -> str:
        """A hash of the source's fingerprint and the indices."""
        return digest([self.source.fingerprint(), self.indices.tobytes()])


def limited(source: Source, limit: int | None) -> Source:
    """At most `limit` records, spread over the source by a keyed permutation, in its order.

    Sorted folders put one class first; the first `limit` records would be a poor sample.
    """
    if limit is None or limit >= len(source):
        return source
    if limit < 1:
        raise UserError(f"limit: {limit} records; use at least 1")
    chosen = shuffled(np.arange(limit), len(source), "limit")
    return Subset(source, np.sort(chosen))


def split_holdout(source: Source, share: float) -> tuple[Subset, Subset]:
    """(train, held out): about `share` of the records are held out, the same ones every time.

    Which side a record falls on is decided by a hash of its key alone (of `meta["group"]` where
    it has one), so adding files moves no other file, and groups stay together. When the source
    has splits of its own (`meta["split"]`: train beside val or test), those are used instead,
    val before test. Each side gets at least one group; raises `UserError` when that cannot be.
    """
    if not 0 <= share < 1:
        raise UserError(f"holdout: {share} is no share of the records; use 0 <= holdout < 1")
    heads = heads_of(source)
    own = None if heads.splits is None else _own_splits(heads.splits)
    if own is not None:
        train, held = own
        return Subset(source, train), Subset(source, held)
    if share == 0:
        return Subset(source, np.arange(len(source))), Subset(source, [])
    unit = _units(heads)
    lowest, highest = (unit.min(), unit.max()) if len(unit) else (0.0, 0.0)
    if lowest == highest:
        raise UserError(
            f"holdout: {len(source)} records in a single group cannot be divided; add records, "
            "or set holdout to 0"
        )
    # Small sets: the cut moves to where both sides have something.
    held_out = unit < min(max(share, np.nextafter(lowest, 1)), highest)
    return Subset(source, np.flatnonzero(~held_out)), Subset(source, np.flatnonzero(held_out))


def _units(heads: Heads) -> np.ndarray:
    """A number in [0, 1) a record that depends on its group, or its key, alone: float64 `[N]`."""
    words = [f"key {key}" for key in heads.keys]
    if heads.groups is not None:
        named = enumerate(heads.groups)
        groups = {row: group for row, group in named if group is not None and group != ""}
        for row, group in groups.items():
            words[row] = f"group {group}"
    blake, encoded = hashlib.blake2b, (word.encode("utf-8", "surrogatepass") for word in words)
    digests = b"".join([blake(word, digest_size=8).digest() for word in encoded])
    return np.frombuffer(digests, "<u8") / 2.0**64


def _own_splits(names: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of the source's own training and validation (else test) part, if it has both."""
    words = ["train" if name in (None, "") else str(name).lower() for name in names]
    parts = [SPLITS.get(word) for word in words]
    held = "val" if "val" in parts else "test"
    if held not in parts or "train" not in parts:
        return None
    if None in parts:
        word = words[parts.index(None)]
        raise UserError(f"split: {word!r} is no part of a data set; use one of {', '.join(SPLITS)}")
    array = np.array(parts, dtype=object)
    return np.flatnonzero(array == "train"), np.flatnonzero(array == held)
