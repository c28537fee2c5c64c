"""A small labelled set of real video files: scanned digits and shapes that move.

Each video shows one object, a digit of scikit-learn's (8 x 8 scans of handwriting, UCI) or a
textured shape, gliding over a still, textured background in one of eight directions at one of three
speeds. What leaves the picture on one side returns on the other, so at any moment the object may be
anywhere whatever its motion: no single frame tells direction or speed. Folders are classes of
speed; `objects.csv`, `speeds.csv` and `directions.csv` list the same files by each label.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator, shuffled

SIDE = 40
"""Height and width of the videos, in pixels; an even number, which H.264 needs."""
FRAMES, FPS = 32, 16
TEST_SHARE = 0.2
DEFAULT_COUNT = 1600
DIRECTIONS = ("e", "se", "s", "sw", "w", "nw", "n", "ne")
SPEEDS = {"slow": 0.7, "medium": 1.4, "fast": 2.8}
"""Pixels a frame."""
SHAPES = ("disc", "square", "triangle", "cross", "ring")
OBJECTS = (*(str(digit) for digit in range(10)), *SHAPES)
STENCIL = 48
"""Side of the mask an object is cut with."""
_HEIGHT = (15.0, 20.0)
_OCTAVES = ((3, 1.0), (6, 0.6), (12, 0.35))


@dataclass(frozen=True)
class Course:
    """What an object does, frame by frame."""

    shift: np.ndarray
    """Pixels it has gone, rows and columns, `[FRAMES, 2]`."""
    growth: np.ndarray
    """Its size over the one drawn for its video, `[FRAMES]`."""
    cover: np.ndarray
    """How much of the ground it hides, 0 to 1, `[FRAMES]`."""


@dataclass(frozen=True)
class Scene:
    """What one video shows: a word for each label, the last of which names its folder."""

    labels: dict[str, str]
    course: Course


def write_samples(folder: Path, *, count: int = DEFAULT_COUNT, seed: int = 0) -> None:
    """Writes `count` MP4 files under `train/` and `test/`, and tables of their labels.

    `folder` must be empty or new. Scans of `test/` never occur in `train/`. Raises `UserError` for
    a count below 20 or a folder with content.
    """
    write_scenes(folder, _scene, count=count, seed=seed)


def write_scenes(
    folder: Path,
    scene_of: Callable[[int, np.random.Generator], Scene],
    *,
    count: int,
    seed: int,
) -> None:
    """The i-th video of each side shows `scene_of(i, random)`; all else as `write_samples` says."""
    folder = Path(folder)
    if count < 20:
        raise UserError(f"count: {count} is too few; write at least 20 videos")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"folder: {folder} is not empty; name a new one")
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = shuffled(np.arange(len(digits.images)), len(digits.images), "sample split", seed)
    held = round(len(order) * TEST_SHARE)
    tests = round(count * TEST_SHARE)
    rows: dict[str, list[tuple[str, str, str]]] = {}
    for side, scans, n in (("test", order[:held], tests), ("train", order[held:], count - tests)):
        for i in range(n):
            random = generator("sample video", seed, side, i)
            scene = scene_of(i, random)
            stencil = _stencil(scene.labels["object"], digits, scans, random)
            name = f"{side}/{list(scene.labels.values())[-1]}/{side}-{i:05d}.mp4"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / name, draw(scene.course, stencil, random), fps=FPS)
            for label, word in scene.labels.items():
                rows.setdefault(label, []).append((name, word, side))
    for label, listed in rows.items():
        with (folder / f"{label}s.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "label", "split"])
            table.writerows(listed)


def _scene(number: int, random: np.random.Generator) -> Scene:
    """Speeds in turn, so that every class has its share; the rest at random."""
    thing, direction = str(random.choice(OBJECTS)), str(random.choice(DIRECTIONS))
    speed = list(SPEEDS)[number % len(SPEEDS)]
    gone = np.arange(FRAMES)[:, None] * (SPEEDS[speed] * heading(direction))
    labels = {"object": thing, "direction": direction, "speed": speed}
    return Scene(labels, Course(gone, np.ones(FRAMES), np.ones(FRAMES)))


def heading(direction: str) -> np.ndarray:
    """The step of length one in a direction, rows and columns."""
    angle = math.tau * DIRECTIONS.index(direction) / len(DIRECTIONS)
    return np.array([math.sin(angle), math.cos(angle)])


def _stencil(
    name: str, digits: object, scans: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Ink coverage in 0..1 of the object, upright, float64 `[STENCIL, STENCIL]`."""
    if name in SHAPES:
        return _shape(name)
    of_class = scans[digits.target[scans] == int(name)]
    scan = digits.images[random.choice(of_class)] / 16.0
    soft = _sampled(np.pad(scan, 2)[:, :, None], *_grid(STENCIL, 12 / STENCIL))[:, :, 0]
    # The scans are soft; a steeper edge gives strokes.
    return ((soft - 0.25) * 2.0).clip(0, 1)


def _shape(name: str) -> np.ndarray:
    y, x = (axis - 0.5 for axis in _grid(STENCIL, 1 / STENCIL))
    radius = np.hypot(x, y)
    inside = {
        "disc": radius < 0.34,
        "ring": (radius < 0.38) & (radius > 0.2),
        "square": np.maximum(abs(x), abs(y)) < 0.3,
        "triangle": (y < 0.3) & (y > -0.35) & (abs(x) < (y + 0.35) * 0.58),
        "cross": (np.minimum(abs(x), abs(y)) < 0.11) & (np.maximum(abs(x), abs(y)) < 0.36),
    }[name]
    return inside.astype(np.float64)


def draw(course: Course, stencil: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The frames of a course from anywhere, uint8 `[FRAMES, SIDE, SIDE, 3]`."""
    ground = _texture(random, level=random.uniform(0.3, 0.7), depth=0.1)
    gap = random.uniform(0.3, 0.5) * (1 if ground.mean() < 0.5 else -1)
    ink = _texture(random, level=ground.mean() + gap, depth=0.12)
    height, turn = random.uniform(*_HEIGHT), np.deg2rad(random.uniform(-15, 15))
    place = random.uniform(0, SIDE, 2)
    y, x = _grid(SIDE, 1.0)
    gone, growth, cover = (
        array[..., None, None] for array in (course.shift.T, course.growth, course.cover)
    )
    # The nearest of all copies on a torus: what leaves on one side returns on the other.
    dy = (y - place[0] - gone[0] + SIDE / 2) % SIDE - SIDE / 2  # [T, H, W]
    dx = (x - place[1] - gone[1] + SIDE / 2) % SIDE - SIDE / 2
    v = (np.cos(turn) * dy - np.sin(turn) * dx) / (height * growth) + 0.5
    u = (np.cos(turn) * dx + np.sin(turn) * dy) / (height * growth) + 0.5
    inside = (u > 0) & (u < 1) & (v > 0) & (v < 1)
    frames = np.broadcast_to(ground, (FRAMES, *ground.shape)).copy()
    v, u = v[inside], u[inside]
    hides = _sampled(stencil[:, :, None], v * STENCIL, u * STENCIL)
    hides = hides * np.broadcast_to(cover, inside.shape)[inside][:, None]
    frames[inside] += hides * (_sampled(ink, v * SIDE, u * SIDE) - frames[inside])
    frames += random.normal(scale=0.015, size=frames.shape)
    return (frames.clip(0, 1) * 255).round().astype(np.uint8)


def _texture(random: np.random.Generator, *, level: float, depth: float) -> np.ndarray:
    """Smooth noise of several widths around a colour, float64 `[SIDE, SIDE, 3]`."""
    y, x = _grid(SIDE, 1.0)
    noise = sum(
        weight * _sampled(random.uniform(-1, 1, (n, n, 1)), y * n / SIDE, x * n / SIDE)
        for n, weight in _OCTAVES
    )
    return level + random.uniform(-0.08, 0.08, 3) + depth * noise


def _grid(side: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres, rows and columns."""
    y, x = np.mgrid[:side, :side] + 0.5
    return y * scale, x * scale


def _sampled(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values of `image` (`[h, w, C]`) between its pixel centres, edges repeated: `[..., C]`."""
    height, width = image.shape[:2]
    y, x = (y - 0.5).clip(0, height - 1.001), (x - 0.5).clip(0, width - 1.001)
    top, left = y.astype(np.int64), x.astype(np.int64)
    b, a = (y - top)[..., None], (x - left)[..., None]
    upper = image[top, left] * (1 - a) + image[top, left + 1] * a
    lower = image[top + 1, left] * (1 - a) + image[top + 1, left + 1] * a
    return upper * (1 - b) + lower * b


def write_video(path: Path, frames: np.ndarray, *, fps: int, group: int = 12) -> None:
    """Frames uint8 `[T, H, W, 3]` as H.264 in an MP4 file, a key frame every `group` frames."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast", "g": str(group), "threads": "1"}
        # Where x264 looks ahead, some of these small pictures get other bytes in another process.
        stream.options["x264-params"] = "no-mbtree=1:rc-lookahead=0"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
