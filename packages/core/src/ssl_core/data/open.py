"""The source behind a path: what is there decides how it is read."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from ssl_core.batch import Source
from ssl_core.data.arrays import read_arrays
from ssl_core.data.files import FileSource, read_list
from ssl_core.data.folder import describe_empty, list_folder, normalised, read_folder
from ssl_core.data.hub import is_saved_dataset, open_hub
from ssl_core.data.listing import listed
from ssl_core.data.manifest import read_manifest
from ssl_core.data.remote import is_remote, remote_shards
from ssl_core.data.subset import limited
from ssl_core.data.tar import expand_braces, open_tars
from ssl_core.errors import UserError, unknown

FORMATS = ("auto", "folder", "list", "manifest", "tar", "array", "file", "hub")


def open_source(
    path: str | os.PathLike[str],
    *,
    suffixes: Sequence[str],
    format: str = "auto",
    limit: int | None = None,
) -> Source:
    """A source of the records at `path`, at most `limit` of them.

    Arguments:
        path: a folder; a text file with one path a line; a CSV, TSV, Parquet or JSON lines
            manifest; a tar shard or a pattern of them (`shards-*.tar`, `shards-{000..099}.tar`);
            `.npy`/`.npz`; a single file; a URL of shards (https://, s3://, see `data.remote`);
            `hf:NAME[@CONFIG][:SPLIT]`, or a folder that `datasets`
            saved.
        suffixes: endings of the files that are samples, such as `.jpg`.
        format: one of `FORMATS`; "auto" decides by name and content.

    Raises `UserError` when nothing is there, or nothing that can be read.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    text = os.path.expanduser(os.fspath(path))
    if is_remote(text):
        if format not in ("auto", "tar"):
            raise UserError(f"format: {format} is read from local disks only; {text} must be tar")
        return limited(open_tars(remote_shards(text), suffixes), limit)
    if format == "auto":
        format = _guess(text, normalised(suffixes))
    return limited(_open(text, format, suffixes), limit)


def _open(text: str, format: str, suffixes: Sequence[str]) -> Source:
    path = Path(text)
    match format:
        case "hub":
            return open_hub(text)
        case "tar":
            return open_tars(_shards(text), suffixes)
        case "folder":
            return read_folder(_folder(path), suffixes)
        case "list":
            return read_list(_file(path))
        case "manifest":
            return read_manifest(_file(path))
        case "array":
            return read_arrays(_file(path))
        case _:
            return FileSource(_file(path).parent, [path.name])


def _guess(text: str, suffixes: tuple[str, ...]) -> str:
    """The format of what is at a path, by its name and content."""
    path = Path(text)
    name = path.name.lower()
    if text.startswith("hf:") or is_saved_dataset(path):
        return "hub"
    if path.is_dir():
        return _guess_folder(path, suffixes)
    if name.endswith((".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")):
        return "tar"
    _existing(path)
    if name.endswith((".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")):
        return "manifest"
    if name.endswith(suffixes):
        return "file"
    if name.endswith((".npy", ".npz")):
        return "array"
    if name.endswith((".txt", ".lst", ".list")):
        return "list"
    raise UserError(
        f"data: cannot tell what {path} is; it is no folder, file list (.txt), manifest (.csv, "
        f".tsv, .parquet, .jsonl), shard (.tar), array (.npy, .npz) nor a sample "
        f"({', '.join(suffixes)})"
    )


def _guess_folder(path: Path, suffixes: tuple[str, ...]) -> str:
    """A folder of samples, unless it holds shards and no samples."""
    # A folder that holds samples is walked once, by the listing that is kept.
    if listed(os.fspath(path), suffixes).names:
        return "folder"
    listing = list_folder(os.fspath(path), (*suffixes, ".tar"))
    shards = [name for name in listing.names if name.lower().endswith(".tar")]
    if not listing.names:
        raise UserError(f"data: {path} {describe_empty(listing, suffixes)}")
    return "tar" if len(shards) == len(listing.names) else "folder"


def _shards(text: str) -> list[Path]:
    """The shards a folder, a pattern or a name stands for, sorted; all of them exist."""
    path = Path(text)
    if path.is_dir():
        found = [path / name for name in list_folder(text, [".tar"]).names]
    else:
        found = []
        for pattern in expand_braces(text):
            if glob.has_magic(pattern) and not os.path.exists(pattern):
                found += [Path(match) for match in glob.glob(pattern)]
            else:
                found.append(_file(Path(pattern)))
    if not found:
        raise UserError(f"data: no shard matches {text}")
    return sorted(set(found))


def _folder(path: Path) -> Path:
    if not _existing(path).is_dir():
        raise UserError(f"data: {path} is not a folder; drop format 'folder'")
    return path


def _file(path: Path) -> Path:
    if _existing(path).is_dir():
        raise UserError(f"data: {path} is a folder, where a file was expected")
    return path


def _existing(path: Path) -> Path:
    """The path itself; names the nearest one that exists when it does not."""
    if path.exists():
        return path
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    near = difflib.get_close_matches(path.name, os.listdir(parent), n=1, cutoff=0.6)
    hint = f"; did you mean {parent / near[0]}?" if near else f"; {parent} has no such entry"
    raise UserError(f"data: {path} does not exist{hint}")
