"""Clips and views: ours against loading and transforming clip by clip, interleaved in one run.

    uv run python tools/bench/video.py [--rounds 5] [--videos 24]

Two measurements, in clips per CPU second (median over rounds; all candidates take their turn in
every round, one thread):

- views: batches of decoded clips to two augmented views, against torchvision v2 called once a clip
  with the same crop, flip, jitter, grey and probabilities (parameters drawn once a clip, as v2
  does for a video tensor);
- end to end: files to one view, by the window our reader draws, against PyAV decoding forward from
  a seek and decord, both followed by v2 a clip.

Epochs after the first of videos short enough to be kept cost the views alone.

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
from ssl_core.rng import Rng, generator
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


def loading_bench(folder: Path, count: int) -> tuple[int, dict[str, Candidate]]:
    """Files to one view a video, decoding every time."""
    frames = footage(10)
    paths = [str(folder / f"{n}.mp4") for n in range(count)]
    for path in paths:
        write_video(Path(path), frames, fps=25, group=60)
    theirs, draws = transform(), iter(range(1_000_000_000))
    spec = {"channels": 3, "size": SIDE, "window": FRAMES, "stride": STRIDE, "range": [0.0, 255.0]}
    spec |= {"mean": MEAN, "std": STD, "draws": True}
    made, ids = policy(FRAMES, 1, 1), torch.arange(count)

    def ours(backend: str) -> list[Any]:
        reader = VideoReader(spec, ReaderOptions(backend=backend))  # type: ignore[arg-type]
        clips = [reader.draw(Record(path, path), next(draws)) for path in paths]
        return made(Batch(reader.collate(clips), ids, ids), Rng.at(0, next(draws), ids))

    def pyav() -> list[Tensor]:
        clips = (torch.from_numpy(_pyav(path, next(draws))) for path in paths)
        return [theirs(clip.permute(0, 3, 1, 2)) for clip in clips]

    def decord() -> list[Tensor]:
        return [
            theirs(torch.from_numpy(_decord(p, next(draws))).permute(0, 3, 1, 2)) for p in paths
        ]

    return count, {
        "ours, decord": lambda: ours("decord"),
        "ours, PyAV": lambda: ours("pyav"),
        "PyAV + v2 a clip": pyav,
        "decord + v2 a clip": decord,
    }


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
    with tempfile.TemporaryDirectory() as folder:
        for title, (clips, candidates) in (
            ("views, 2 x 16 x 112 x 112", views_bench(arguments.videos)),
            ("views, 2 x 16 x 24 x 24 (the default's)", views_bench(4 * arguments.videos, 24)),
            ("files to a view", loading_bench(Path(folder), arguments.videos)),
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
