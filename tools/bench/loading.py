"""Images from disk to uint8 batches: ours against ImageFolder, interleaved in one run.

    uv run python tools/bench/loading.py [--images 1024] [--rounds 3]

Writes JPEG files of noise-textured scenes, packs them, and reads one pass of each variant per
round, workers started anew. Prints images per CPU second (this process and its workers) and per
second of the clock, medians over rounds, and the ratio to ImageFolder with PIL and 2 workers.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from ssl_core.data import Loader, Stream
from ssl_core.recipe import Data
from ssl_core.rng import generator
from ssl_core.runs.packing import pack
from ssl_core.runs.parts import fitted_reader, open_data
from ssl_vision import VISION

BATCH = 64


def write_images(folder: Path, count: int, side: int) -> None:
    """JPEG files (quality 90) in eight class folders."""
    coarse = side // 16
    for number in range(count):
        random = generator("bench image", number)
        image = Image.fromarray(random.integers(0, 256, (coarse, coarse, 3), np.uint8))
        image = image.resize((side, side), Image.Resampling.BICUBIC)
        place = folder / f"class{number % 8}" / f"{number:05d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.save(place, quality=90)


def image_folder(folder: Path, transform: Any) -> Iterator[int]:
    """torchvision's way, as most tutorials have it."""
    loader = DataLoader(ImageFolder(str(folder), transform), BATCH, shuffle=True, num_workers=2)
    for images, _ in loader:
        yield len(images)


def ours(path: Path, *, workers: int) -> Iterator[int]:
    """Our loader over whatever is at a path."""
    data = Data(path=str(path))
    source = open_data(VISION, data)
    steps = len(source) // BATCH
    stream = Stream(len(source), BATCH, seed=0)
    reader = fitted_reader(VISION, source, data)
    loader = Loader(source, reader, stream, workers=workers, cache="none")
    for batch in loader.batches(0, steps):
        assert batch.data.dtype == torch.uint8
        yield len(batch)


def cpu_seconds() -> float:
    """Of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def measure(variant: Callable[[], Iterator[int]]) -> tuple[float, float]:
    """Images per CPU second and per second of one pass."""
    cpu, clock = cpu_seconds(), time.perf_counter()
    images = sum(variant())
    return images / (cpu_seconds() - cpu), images / (time.perf_counter() - clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--side", type=int, default=288)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    floats = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    with tempfile.TemporaryDirectory() as scratch:
        files, shards, decoded = (Path(scratch, name) for name in ("files", "shards", "decoded"))
        write_images(files, given.images, given.side)
        pack(VISION, Data(path=str(files)), shards)
        pack(VISION, Data(path=str(files)), decoded, decoded=True)
        variants = {
            "ImageFolder, PIL to float, 2 workers": lambda: image_folder(files, floats),
            "ImageFolder, PIL to uint8, 2 workers": lambda: image_folder(files, v2.PILToTensor()),
            "ours, JPEG folder, 2 threads": lambda: ours(files, workers=2),
            "ours, tar shards, 2 threads": lambda: ours(shards, workers=2),
            "ours, packed samples, in process": lambda: ours(decoded, workers=0),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
        for _ in range(given.rounds):
            for name, variant in variants.items():
                found[name].append(measure(variant))
    print("| variant | images per CPU second | x | images per second | x |")
    print("|---|---|---|---|---|")
    base = [statistics.median(column) for column in zip(*next(iter(found.values())), strict=True)]
    for name, rows in found.items():
        cpu, clock = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {cpu:.0f} | {cpu / base[0]:.1f} | {clock:.0f} | {clock / base[1]:.1f} |")


if __name__ == "__main__":
    main()
