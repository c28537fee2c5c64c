"""A folder of files, at any depth, with classes by sub-folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_core.data.files import FileSource
from ssl_core.data.labels import from_paths
from ssl_core.errors import UserError

_SKIPPED_FOLDERS = frozenset({"__MACOSX", "lost+found", "@eaDir", "$RECYCLE.BIN"})


@dataclass
class Listing:
    """What a walk through a folder found: relative posix paths, and what was passed over."""

    names: list[str] = field(default_factory=list)
    folders: int = 0
    others: Counter[str] = field(default_factory=Counter)
    stamps: list[tuple[str, int]] = field(default_factory=list)
    """Every folder, relative to the root, with its time of last change in nanoseconds."""


def normalised(suffixes: Sequence[str]) -> tuple[str, ...]:
    """Suffixes in lower case with their dot."""
    return tuple(dict.fromkeys("." + suffix.lower().lstrip(".") for suffix in suffixes))


def list_folder(root: str, suffixes: Sequence[str]) -> Listing:
    """Every file below `root` whose name ends in one of `suffixes` (any case), sorted.

    Hidden files and folders are passed over. Links are followed, but no folder is listed twice:
    real folders come first, then linked ones not seen yet, so that loops end.
    """
    wanted = normalised(suffixes)
    found = Listing()
    seen: set[tuple[int, int]] = set()
    links = [(root, "")]
    while links:
        links.sort(key=lambda link: link[1], reverse=True)
        folder, prefix = links.pop()
        links += _walk(folder, prefix, wanted, found, seen)
    found.names.sort()
    return found


def _walk(
    root: str, prefix: str, wanted: tuple[str, ...], found: Listing, seen: set[tuple[int, int]]
) -> list[tuple[str, str]]:
    """Lists the real folders below `root`; returns the linked ones as (path, prefix)."""
    links = []
    stack = [(root, prefix)]
    while stack:
        folder, prefix = stack.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                inner, linked = _entries(entries, prefix, wanted, found)
        except OSError as error:
            raise UserError(
                f"data: the folder {folder} cannot be read ({error.strerror}); "
                "make it readable or move it away"
            ) from error
        found.folders += 1
        found.stamps.append((prefix, status.st_mtime_ns))
        stack += inner
        links += linked
    return links


def _entries(
    entries: Iterable[os.DirEntry[str]], prefix: str, wanted: tuple[str, ...], found: Listing
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Takes the files of one folder; returns its real and its linked sub-folders."""
    inner: list[tuple[str, str]] = []
    linked: list[tuple[str, str]] = []
    for entry in entries:
        name = entry.name
        if name.startswith("."):
            continue
        if entry.is_dir():
            if name not in _SKIPPED_FOLDERS:
                target = linked if entry.is_symlink() else inner
                target.append((entry.path, f"{prefix}{name}/"))
        elif not name.lower().endswith(wanted):
            found.others[os.path.splitext(name)[1].lower()] += 1
        elif entry.is_file() or not os.path.exists(entry.path):
            # A broken link is kept: it is a sample that cannot be read, and is counted as one.
            found.names.append(prefix + name)
    return inner, linked


def read_folder(path: Path, suffixes: Sequence[str]) -> FileSource:
    """A source of all files below `path` with one of `suffixes`.

    Classes are the sub-folders, where there are at least two; `train/` beside `val/` or `test/`
    become splits. Raises `UserError` when nothing is found.
    """
    from ssl_core.data.listing import listed

    listing = listed(os.fspath(path), suffixes)
    if not listing.names:
        raise UserError(f"data: {path} {describe_empty(listing, suffixes)}")
    labels, classes, splits = from_paths(listing.names)
    meta = {} if splits is None else {"split": splits}
    return FileSource(path, listing.names, labels=labels, classes=classes, meta=meta)


def describe_empty(listing: Listing, suffixes: Sequence[str]) -> str:
    """Why a folder gave nothing: what was looked for, and what is there instead."""
    looked = ", ".join(normalised(suffixes))
    common = listing.others.most_common(5)
    there = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in common)
    rest = f"it holds other files ({there})" if there else "it is empty"
    folders = "" if listing.folders == 1 else f" in its {listing.folders} folders"
    return f"has no file ending in {looked}{folders}; {rest}"
