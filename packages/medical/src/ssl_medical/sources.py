"""Where scans come from: the core's sources, folders of DICOM series, patients as groups."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ssl_core.batch import Source
from ssl_core.data import open_source
from ssl_core.data.files import FileSource
from ssl_core.data.folder import list_folder
from ssl_core.data.labels import from_paths
from ssl_core.data.subset import limited
from ssl_core.errors import UserError
from ssl_medical.files.dicom import patient_group
from ssl_medical.files.open import SUFFIXES

TABLE = "volumes.csv"
"""A manifest of this name inside a folder is read in its place."""
_SLICES = (".dcm", ".ima")


def open_volumes(path: str, *, format: str = "auto", limit: int | None = None) -> Source:
    """The source at `path`: all of `ssl_core.data.open_source`, and `format` "dicom".

    In "dicom" every folder that holds slices is one scan; so it is in "auto", beside scans that are
    files. A manifest's column `patient` keeps a patient's scans on one side of the
    split; in DICOM folders the patient is a hash of the header's.
    """
    text = os.path.expanduser(path)
    if format == "auto" and os.path.isfile(os.path.join(text, TABLE)):
        text = os.path.join(text, TABLE)
    if format == "dicom":
        return limited(dicom_folders(Path(text)), limit)
    if format == "auto" and (files := _beside_slices(text)) is not None:
        return limited(dicom_folders(Path(text), files), limit)
    source: Source = open_source(text, suffixes=SUFFIXES, format=format, limit=limit)
    return _by_patient(source)


def _by_patient(source: Source) -> Source:
    inner: Any = source
    while not isinstance(inner, FileSource) and hasattr(inner, "source"):
        inner = inner.source
    if isinstance(inner, FileSource) and "patient" in inner.meta and "group" not in inner.meta:
        inner.meta["group"] = inner.meta["patient"]
    return source


def _beside_slices(path: str) -> list[str] | None:
    """Scans in a folder that are files of their own; None for a folder without slices."""
    if not os.path.isdir(path):
        return None
    names = list_folder(path, (*SUFFIXES, ".ima", ".tar")).names
    files = [name for name in names if not name.lower().endswith(_SLICES)]
    if len(files) == len(names) or any(name.lower().endswith(".tar") for name in files):
        return None
    return files


def dicom_folders(root: Path, files: Sequence[str] = ()) -> FileSource:
    """Every folder below `root` that holds slices, as one scan, and `files`; classes as for files.

    A file tells no patient: each is a patient of its own.
    """
    if not root.is_dir():
        raise UserError(f"data: {root} is not a folder; format 'dicom' reads folders of slices")
    slices = list_folder(os.fspath(root), _SLICES).names
    folders = {str(PurePosixPath(name).parent) for name in slices}
    if files and "." in folders:
        raise UserError(
            f"data: {root} holds DICOM slices beside {files[0]}; move the slices of each series "
            "into a folder of their own"
        )
    names = sorted({*folders, *files})
    if not names:
        raise UserError(f"data: {root} holds no .dcm file; rename the slices to end in .dcm")
    if names == ["."]:
        return FileSource(root.resolve().parent, [root.resolve().name])
    labels, classes, splits = from_paths(names)
    meta: dict[str, Sequence[Any] | np.ndarray] = {} if splits is None else {"split": splits}
    meta["group"] = [
        patient_group(os.path.join(root, name)) if name in folders else name for name in names
    ]
    return FileSource(root, names, labels=labels, classes=classes, meta=meta)  # type: ignore[arg-type]
