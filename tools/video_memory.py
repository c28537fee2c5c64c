"""Does reading videos leak? Resident memory over thousands of opens, and over worker processes.

    uv run python tools/video_memory.py [--opens 2000] [--workers 8]

Every open reads a clip of 16 frames from a 10 s file of 170 x 128 pixels (16 MB decoded, which a
reader left open would keep), by both backends in turn, and closes. Memory is flat when the growth
from the second to the last quarter of the opens stays below --limit MB.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from pathlib import Path

import numpy as np

from ssl_core.batch import Record
from ssl_core.data import ArraySource, Loader, Stream
from ssl_video.reader import ReaderOptions, VideoReader
from ssl_video.samples import write_video

SPEC = {"channels": 3, "size": 112, "window": 16, "stride": 4, "draws": True}


def resident(process: str = "self") -> float:
    """Megabytes in memory."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * 4096 / 2**20


def opens(path: str, count: int) -> list[float]:
    """Memory after every hundredth part of `count` opens in this process."""
    readers = [VideoReader(SPEC, ReaderOptions(backend=name)) for name in ("decord", "pyav")]  # type: ignore[arg-type]
    marks = []
    for number in range(count):
        readers[number % 2].draw(Record(str(number), path), number)
        if (number + 1) % max(1, count // 100) == 0:
            gc.collect()
            marks.append(resident())
    return marks


def workers(path: str, count: int, processes: int) -> list[float]:
    """Memory of all worker processes together after every step of a loader."""
    source = ArraySource([path] * 64)
    marks = []
    with Loader(
        source,
        VideoReader(SPEC),
        Stream(64, 16, seed=0),
        workers=processes,
        worker_kind="process",
    ) as loader:
        for _ in loader.batches(0, max(1, count // 16)):
            pool = loader._processes
            assert pool is not None
            marks.append(sum(resident(str(pid)) for pid in pool.pids))
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--opens", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--limit", type=float, default=40.0)
    arguments = parser.parse_args()
    blocks = np.random.default_rng(0).integers(0, 256, (16, 38, 3), np.uint8)
    moving = blocks.repeat(8, axis=0).repeat(8, axis=1)  # [128, 304, 3]: cheap to encode
    frames = np.stack([moving[:, n % 128 : n % 128 + 170] for n in range(250)])
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "ten-seconds.mp4")
        write_video(Path(path), frames, fps=25, group=60)
        for name, marks in (
            (f"{arguments.opens} opens, one process", opens(path, arguments.opens)),
            (
                f"{arguments.opens} opens, {arguments.workers} processes",
                workers(path, arguments.opens, arguments.workers),
            ),
        ):
            quarter = max(1, len(marks) // 4)
            early, late = np.median(marks[quarter : 2 * quarter]), np.median(marks[-quarter:])
            print(f"{name}: {early:.0f} MB in the second quarter, {late:.0f} MB in the last")
            failed |= late - early > arguments.limit
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
