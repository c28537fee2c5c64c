"""Listings of large folders, kept: a million files are walked once, then read from one file.

A kept listing holds the time of last change of every folder it saw. A file that comes, goes or is
renamed changes the time of its folder, so one `stat` for each folder tells whether the listing
still holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_core.data.folder import Listing, list_folder, normalised
from ssl_core.files import atomic_write, cache_folder

VERSION = 1
WORTH_KEEPING = 20_000
"""Files from which a listing is kept; smaller folders are walked in a moment."""
_SETTLED = 2 * 10**9
"""Nanoseconds for which a folder must not have changed: clocks of file systems are coarse."""


def listed(root: str, suffixes: Sequence[str], *, worth: int = WORTH_KEEPING) -> Listing:
    """`list_folder`, from the cache where nothing changed since it was walked.

    The cache is `listings/` in the cache folder (`$SSL_CACHE`, else `~/.cache/ssl`). What cannot
    be read or written there is walked again.
    """
    wanted = normalised(suffixes)
    place = _place(root, wanted)
    found = _load(place, root, wanted)
    if found is not None:
        return found
    began = time.time_ns()
    walked = list_folder(root, suffixes)
    newest = max(changed for _, changed in walked.stamps)
    if len(walked.names) >= worth and newest < began - _SETTLED:
        _keep(place, root, wanted, walked)
    return walked


def _place(root: str, wanted: tuple[str, ...]) -> Path:
    text = "\n".join([os.path.abspath(root), *wanted])
    name = hashlib.blake2b(os.fsencode(text), digest_size=12).hexdigest()
    return cache_folder() / "listings" / f"{name}.json"


def _load(place: Path, root: str, wanted: tuple[str, ...]) -> Listing | None:
    """The kept listing, or None unless it is whole and every folder is as it was."""
    try:
        stored: dict[str, Any] = json.loads(place.read_bytes())
        head = [stored["version"], stored["root"], stored["suffixes"]]
        if head != [VERSION, os.path.abspath(root), list(wanted)]:
            return None
        for folder, changed in stored["stamps"]:
            if os.stat(os.path.join(root, folder)).st_mtime_ns != changed:
                return None
        names = list(stored["names"])
        others = Counter({str(k): int(n) for k, n in stored["others"].items()})
        stamps = [(str(folder), int(changed)) for folder, changed in stored["stamps"]]
        return Listing(names, len(stamps), others, stamps)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # missing, damaged or outdated: it is only a copy of what the disk says


def _keep(place: Path, root: str, wanted: tuple[str, ...], found: Listing) -> None:
    content = {
        "version": VERSION,
        "root": os.path.abspath(root),
        "suffixes": list(wanted),
        "stamps": found.stamps,
        "others": dict(found.others),
        "names": found.names,
    }
    try:
        # Names that are no text keep their bytes as escapes, in both directions.
        atomic_write(place, json.dumps(content).encode("ascii"))
    except OSError:
        return  # a read-only or full cache folder: the next call walks again
