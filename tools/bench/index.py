"""Indexing a folder of a million files: the first walk, the kept listing, after one change.

    uv run python tools/bench/index.py [--files 1000000] [--folders 1000] [--root DIR]

Empty files are made below --root (default: a temporary folder) and removed again. Figures are wall
seconds of opening the folder as a training run does: names, classes, and the hold-out.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ssl_core.data import open_source, split_holdout
from ssl_core.data.listing import listed

SUFFIXES = (".jpg",)


def make(root: Path, files: int, folders: int) -> None:
    """Empty files, evenly over class folders that look an hour old."""
    for number in range(folders):
        folder = root / f"class-{number:05d}"
        folder.mkdir(parents=True)
        for file in range(number, files, folders):
            os.close(os.open(folder / f"{file:08d}.jpg", os.O_CREAT | os.O_WRONLY))
    then = time.time_ns() - 3600 * 10**9
    for folder in [root, *root.iterdir()]:
        os.utime(folder, ns=(then, then))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--root", help="where to make the files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.root) as scratch:
        os.environ["SSL_CACHE"] = str(Path(scratch, "cache"))
        root = Path(scratch, "files")
        made = seconds(lambda: make(root, options.files, options.folders))
        print(f"made {options.files} files in {options.folders} folders: {made:.1f} s")
        path = str(root)
        print(f"listing, first: {seconds(lambda: listed(path, SUFFIXES)):.2f} s")
        print(f"listing, kept: {seconds(lambda: listed(path, SUFFIXES)):.2f} s")
        source = open_source(path, suffixes=SUFFIXES)
        print(f"source, kept: {seconds(lambda: open_source(path, suffixes=SUFFIXES)):.2f} s")
        print(f"hold-out: {seconds(lambda: split_holdout(source, 0.2)):.2f} s")
        (root / "class-00000" / "new.jpg").touch()
        print(f"listing, after a change: {seconds(lambda: listed(path, SUFFIXES)):.2f} s")


if __name__ == "__main__":
    main()
