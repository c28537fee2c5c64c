"""Where videos come from: the core's sources, and folders whose sub-folders hold frames."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np

from ssl_core.batch import Source
from ssl_core.data import open_source
from ssl_core.data.files import FileSource
from ssl_core.data.folder import list_folder
from ssl_core.data.labels import from_paths
from ssl_core.data.subset import limited
from ssl_core.errors import UserError
from ssl_video.files.stills import PICTURES
from ssl_video.files.video import SUFFIXES


def open_videos(path: str, *, format: str = "auto", limit: int | None = None) -> Source:
    """The source at `path`: all of `ssl_core.data.open_source`, and `format` "frames".

    "frames" is a folder in which every folder that holds pictures is one video; "auto" takes it
    for a folder with pictures and without video files. A single `.npy` is an array `[N, T, H, W,
    C]` of clips; in folders every `.npy` is one video `[T, H, W, C]`.
    """
    text = os.path.expanduser(path)
    if format == "frames" or (format == "auto" and _only_pictures(text)):
        return limited(frame_folders(Path(text)), limit)
    if format == "auto" and text.lower().endswith((".npy", ".npz")) and os.path.isfile(text):
        format = "array"
    source: Source = open_source(path, suffixes=SUFFIXES, format=format, limit=limit)
    return source


def _only_pictures(path: str) -> bool:
    if not os.path.isdir(path):
        return False
    names = list_folder(path, (*SUFFIXES, ".tar", *PICTURES)).names
    return bool(names) and all(name.lower().endswith(PICTURES) for name in names)


def frame_folders(root: Path) -> FileSource:
    """Every folder below `root` that holds pictures, as one video; classes as for files."""
    if not root.is_dir():
        raise UserError(f"data: {root} is not a folder; format 'frames' reads folders of pictures")
    pictures = list_folder(os.fspath(root), PICTURES).names
    names = sorted({str(PurePosixPath(name).parent) for name in pictures})
    if not names:
        raise UserError(f"data: {root} holds no pictures ({', '.join(PICTURES)})")
    if names == ["."]:
        # The folder itself is the only video: its name is the record's.
        return FileSource(root.resolve().parent, [root.resolve().name])
    labels, classes, splits = from_paths(names)
    meta: dict[str, list[str] | np.ndarray] = {} if splits is None else {"split": splits}
    return FileSource(root, names, labels=labels, classes=classes, meta=meta)  # type: ignore[arg-type]
