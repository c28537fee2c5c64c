"""Records that are files: the source behind folders, file lists and manifests."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_core.batch import Record
from ssl_core.data.heads import Heads, digest, evenly
from ssl_core.data.labels import from_paths, label_of
from ssl_core.errors import UserError


class FileSource:
    """Files named relative to a root; `Record.payload` is the path as a string.

    Arguments: `names` are posix paths relative to `root` (absolute ones stand for themselves) and
    become the record keys; `labels` is int64 `[N]`, -1 where missing, with the names in
    `classes`; `meta` holds columns of N values. A column `group` keeps records together in a
    hold-out; a column `split` says which part of the data set a record belongs to.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        names: Sequence[str],
        *,
        labels: np.ndarray | None = None,
        classes: Sequence[str] | None = None,
        meta: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self.root = os.fspath(root)
        self.names = names
        self.labels = labels
        self.meta = dict(meta or {})
        self._classes = None if classes is None else list(classes)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the labels, or None."""
        return self._classes

    def head(self, index: int) -> Record:
        """Key, label and meta."""
        meta = {name: column[index] for name, column in self.meta.items()}
        return Record(self.names[index], None, label_of(self.labels, index), meta)

    def heads(self) -> Heads:
        """Key, label, group and split of every record."""
        return Heads(self.names, self.labels, self.meta.get("group"), self.meta.get("split"))

    def path(self, index: int) -> str:
        """Where the file lies."""
        return os.path.join(self.root, self.names[index])

    def __getitem__(self, index: int) -> Record:
        head = self.head(index)
        return Record(head.key, self.path(index), head.label, head.meta)

    def fingerprint(self) -> str:
        """A hash of all names and of up to 256 file sizes, spread over the set."""
        return digest([*self.names, *(_size(self.path(i)) for i in evenly(len(self), 256))])


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def read_list(path: Path) -> FileSource:
    """A source from a text file with one path a line, relative to the file's folder.

    Empty lines and lines that start with # are skipped. Classes come from the folders in the
    paths, as in `read_folder`. Raises `UserError` when no line is left or no file is there.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"data: {path} is not a text file of paths ({error})") from error
    names = [line.strip() for line in lines]
    names = [name for name in names if name and not name.startswith("#")]
    if not names:
        raise UserError(f"data: {path} lists no files; write one path a line")
    labels, classes, splits = from_paths(names)
    meta = {} if splits is None else {"split": splits}
    return existing(FileSource(path.parent, names, labels=labels, classes=classes, meta=meta), path)


def existing(source: FileSource, origin: Path) -> FileSource:
    """The source itself; raises `UserError` when none of up to 32 of its files exists.

    Some missing files are corrupt samples, counted by the loader; all of them missing means that
    the paths are relative to another folder.
    """
    probes = [source.path(i) for i in evenly(len(source), 32)]
    if any(os.path.exists(probe) for probe in probes):
        return source
    raise UserError(
        f"data: none of the {len(probes)} files looked for in {origin} exists, for instance "
        f"{probes[0]}; paths are relative to the folder of {origin.name}"
    )
