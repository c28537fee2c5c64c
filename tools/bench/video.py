"""Clips and views: ours against loading and transforming clip by clip, interleaved in one run.

    uv run python tools/bench/video.py [--rounds 5] [--videos 24]

Four measurements, in clips per CPU second (median over rounds; all candidates take their turn in
every round, one thread):

- views: batches of decoded clips to two augmented views, against torchvision v2 called once a clip
  with the same crop, flip, jitter, grey and probabilities (parameters drawn once a clip, as v2
  does for a video tensor);
- end to end: files to one view, by the window our reader draws, against PyAV decoding forward from
  a seek and decord, both followed by v2 a clip;
- two views of two windows of each video (rho clips), which we decode from one opening and they
  load one by one;
- packed windows (`ssl-video pack --decoded`) to one view: the same window every epoch, no decoding.

Videos are 340 x 256, 10 s, a key frame every 60 frames; views are 16 frames of 112 pixels.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from ssl_core.batch import Batch, Record
from ssl_core.data.packed import PackedSource
from ssl_core.recipe import Data
from ssl_core.rng import Rng, generator
from ssl_core.runs.packing import pack
from ssl_video import VIDEO
from ssl_video.files.plan import windows
from ssl_video.reader import ReaderOptions, VideoReader
from ssl_video.samples import write_video

FRAMES, STRIDE, SIDE = 16, 4, 112
MEAN, STD = [0.43, 0.39, 0.37], [0.22, 0.22, 0.22]
Candidate = Callable[[], Any]


def footage(seconds: int, fps: int = 25) -> np.ndarray:
    """Textured frames that pan, uint8 `[T, 256, 340, 3]`."""
    random = generator("bench video", seconds)
    coarse = torch.from_numpy(random.integers(0, 256, (1, 3, 24, 40)).astype(np.float32))
    wide = torch.nn.functional.interpolate(coarse, size=(288, 640), mode="bicubic")
    # As decoders hand frames out: colours beside each other in memory.
    picture = wide[0].clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
    shifts = [(n % 32, n) for n in range(seconds * fps)]
    return np.stack([picture[y : y + 256, x : x + 340] for y, x in shifts])


def transform(side: int = SIDE) -> v2.Compose:
    """One clip `[T, C, H, W]` as torchvision does it: every draw once a clip."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(0.3, 1.0), antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def policy(frames: int, stride: int, views: int, side: int = SIDE) -> Any:
    spec = {"channels": 3, "size": side, "window": frames, "stride": 1, "range": [0.0, 255.0]}
    options = {"size": side, "frames": FRAMES, "stride": stride, "views": views, "blur": 0.0}
    options["strength"] = 1.0
    return VIDEO.create_views("clips", spec | {"mean": MEAN, "std": STD}, options)


def views_bench(count: int, side: int = SIDE) -> tuple[int, dict[str, Candidate]]:
    """Two views of each of `count` decoded clips of 32 frames, of 340 x 256 or 40 x 40 pixels."""
    source = footage(4)
    source = source if side == SIDE else source[:, :40, :40]
    pixels = torch.from_numpy(np.stack([source[n % 64 : n % 64 + 32] for n in range(count)]))
    ids = torch.arange(count)
    ours, theirs = policy(32, 2, 2, side), transform(side)
    steps = iter(range(1_000_000))

    def clip_by_clip() -> list[Tensor]:
        starts = torch.randint(0, 2, (2 * count,)).tolist()
        clips = [pixels[n // 2, s : s + 31 : 2] for n, s in enumerate(starts)]
        return [theirs(clip.permute(0, 3, 1, 2)) for clip in clips]

    return 2 * count, {
        "ours": lambda: ours(Batch(pixels, ids, ids), Rng.at(0, next(steps), ids)),
        "torchvision v2": clip_by_clip,
    }


def footage_files(folder: Path, count: int) -> list[str]:
    """`count` MP4 files of 10 s."""
    frames = footage(10)
    paths = [str(folder / f"{n}.mp4") for n in range(count)]
    for path in paths:
        write_video(Path(path), frames, fps=25, group=60)
    return paths


def loading_bench(paths: list[str], views: int) -> tuple[int, dict[str, Candidate]]:
    """Files to `views` views of as many windows of each video, decoding every time."""
    count, theirs, draws = len(paths), transform(), iter(range(1_000_000_000))
    spec = {"channels": 3, "size": SIDE, "window": FRAMES, "stride": STRIDE, "range": [0.0, 255.0]}
    spec |= {"mean": MEAN, "std": STD, "draws": True}
    made, ids = policy(FRAMES, 1, views), torch.arange(count)

    def ours(backend: str) -> list[Any]:
        options = ReaderOptions(backend=backend, clips=views)  # type: ignore[arg-type]
        reader = VideoReader(spec, options)
        clips = [reader.draw(Record(path, path), next(draws)) for path in paths]
        return made(Batch(reader.collate(clips), ids, ids), Rng.at(0, next(draws), ids))

    def clip_by_clip(load: Callable[[str, int], np.ndarray]) -> list[Tensor]:
        clips = (torch.from_numpy(load(path, next(draws))) for path in paths for _ in range(views))
        return [theirs(clip.permute(0, 3, 1, 2)) for clip in clips]

    return views * count, {
        "ours, decord": lambda: ours("decord"),
        "ours, PyAV": lambda: ours("pyav"),
        "PyAV + v2 a clip": lambda: clip_by_clip(_pyav),
        "decord + v2 a clip": lambda: clip_by_clip(_decord),
    }


def packed_bench(folder: Path, paths: list[str]) -> tuple[int, dict[str, Candidate]]:
    """Packed windows to one view each, against decord, which decodes."""
    options = {"window": FRAMES, "stride": STRIDE, "measure": 4}
    packed = folder / "packed"
    pack(VIDEO, Data(path=str(Path(paths[0]).parent), options=options), packed, decoded=True)
    source = PackedSource(packed)
    reader = VIDEO.load_reader(source.reader_folder)
    made, ids, draws = policy(FRAMES, 1, 1), torch.arange(len(paths)), iter(range(1_000_000_000))

    def ours() -> list[Any]:
        clips = reader.collate([source[n].payload.sample for n in range(len(paths))])
        return made(Batch(clips, ids, ids), Rng.at(0, next(draws), ids))

    peer = loading_bench(paths, 1)[1]["decord + v2 a clip"]
    return len(paths), {"ours, packed": ours, "decord + v2 a clip": peer}


def _pyav(path: str, draw: int) -> np.ndarray:
    """Seek once, decode forward, keep every `STRIDE`-th frame."""
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        numbers = windows(stream.frames, count=FRAMES, stride=STRIDE, key=draw)
        step = float(1 / stream.average_rate / stream.time_base)
        container.seek(int(numbers[0] * step), stream=stream)
        wanted, kept = set(numbers.tolist()), []
        for frame in container.decode(stream):
            number = round(frame.pts / step)
            if number in wanted:
                kept.append(frame.to_ndarray(format="rgb24"))
            if number >= numbers[-1]:
                return np.stack(kept)
    raise RuntimeError("the file ended early")


def _decord(path: str, draw: int) -> np.ndarray:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    numbers = windows(len(reader), count=FRAMES, stride=STRIDE, key=draw)
    frames: np.ndarray = reader.get_batch(numbers).asnumpy()
    return frames


def measured(clips: int, candidates: dict[str, Candidate], rounds: int) -> dict[str, float]:
    """Clips per CPU second of each candidate, median over rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()  # warm-up
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: clips / statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--videos", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        (videos := Path(name) / "videos").mkdir()
        paths = footage_files(videos, arguments.videos)
        for title, (clips, candidates) in (
            ("views, 2 x 16 x 112 x 112", views_bench(arguments.videos)),
            ("views, 2 x 16 x 24 x 24 (the default's)", views_bench(4 * arguments.videos, 24)),
            ("files to a view", loading_bench(paths, 1)),
            ("files to two views of two windows", loading_bench(paths, 2)),
            ("packed windows to a view", packed_bench(Path(name), paths)),
        ):
            print(title)
            rates = measured(clips, candidates, arguments.rounds)
            for name, rate in rates.items():
                ratios = [
                    f"{rate / other:.1f}x {rival}"
                    for rival, other in rates.items()
                    if name.startswith("ours") and not rival.startswith("ours")
                ]
                print(f"  {name:20} {rate:8.1f} clips/s   {', '.join(ratios)}")


if __name__ == "__main__":
    main()
