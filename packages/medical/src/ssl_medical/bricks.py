"""Prepared voxels on disk in bricks, so that a training step reads a block and not a scan.

A file holds `[nx, ny, nz, C, 32, 32, 32]` int16, memory-mapped: a 64-cube out of 512 x 512 x 600
touches at most 27 bricks (1.8 MB), where plain rows would touch 4096 pages.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_core.files import atomic_path, write_json

SIDE = 32


@dataclass(frozen=True)
class Bricks:
    """A scan cut into cubes; `shape` is `[C, X, Y, Z]` without the padding of the last cubes."""

    cubes: np.ndarray
    shape: tuple[int, int, int, int]

    def read(self, corner: Sequence[int], block: Sequence[int]) -> np.ndarray:
        """int16 `[C, *block]` from `corner` on; zeros outside the scan."""
        out = np.zeros((self.shape[0], *block), np.int16)
        ends = [min(c + b, s) for c, b, s in zip(corner, block, self.shape[1:], strict=True)]
        first = [max(0, c) for c in corner]
        cells = [range(a // SIDE, -(-b // SIDE)) for a, b in zip(first, ends, strict=True)]
        for cell in itertools.product(*cells):
            low = [max(a, n * SIDE) for a, n in zip(first, cell, strict=True)]
            high = [min(b, (n + 1) * SIDE) for b, n in zip(ends, cell, strict=True)]
            inside = zip(low, high, cell, strict=True)
            source = tuple(slice(a - n * SIDE, b - n * SIDE) for a, b, n in inside)
            target = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
            out[(slice(None), *target)] = self.cubes[cell][(slice(None), *source)]
        return out


def cut(voxels: np.ndarray) -> Bricks:
    """Bricks of `[C, X, Y, Z]`."""
    channels, *sides = voxels.shape
    counts = [-(-side // SIDE) for side in sides]
    padded = np.zeros((channels, *(n * SIDE for n in counts)), np.int16)
    padded[:, : sides[0], : sides[1], : sides[2]] = voxels
    split = padded.reshape(channels, counts[0], SIDE, counts[1], SIDE, counts[2], SIDE)
    cubes = np.ascontiguousarray(split.transpose(1, 3, 5, 0, 2, 4, 6))
    return Bricks(cubes, (channels, sides[0], sides[1], sides[2]))


def stored(folder: Path, path: str, settings: str, make: Callable[[], np.ndarray]) -> Bricks:
    """The bricks of a file, made once for these settings and then memory-mapped.

    The name holds a hash of path, size and time of the file, so that a changed file is read anew.
    """
    files = [path]
    if os.path.isdir(path):
        files = sorted(os.path.join(path, name) for name in os.listdir(path))
    facts = [(file, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]
    word = hashlib.blake2b(json.dumps([facts, settings]).encode(), digest_size=12).hexdigest()
    target = folder / f"{word}.npy"
    shape_file = folder / f"{word}.json"
    if not shape_file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        bricks = cut(make())
        # Renamed when whole, and gone when not: others may write them, too.
        with atomic_path(target) as own:
            np.save(own, bricks.cubes)
        write_json(shape_file, bricks.shape)
    shape = json.loads(shape_file.read_text())
    return Bricks(np.load(target, mmap_mode="r", allow_pickle=False), tuple(shape))
