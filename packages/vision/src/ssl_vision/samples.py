"""A small labelled set of real image files: scanned digits placed in cluttered scenes.

The digits are scikit-learn's (8 x 8 scans of handwriting, UCI). Each is scaled, turned, coloured
and put somewhere on a textured background, so that raw pixels say little about the class and a
representation has to ignore place, size, colour and clutter. Every scan belongs to one side:
`train/<class>/` and `test/<class>/` never show the same handwriting sample. `captions.csv` lists
all images with captions that say digit, brightness and size, for methods that learn from text.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator, shuffled

SIDE = 40
"""Height and width of the images, in pixels."""
TEST_SHARE = 0.2
DEFAULT_COUNT = 5000

# How much changes between images of one class. Chosen so that raw pixels stay well above chance
# and what defeats them (place, size, polarity, colour) is what views teach an encoder to ignore.
GROUND_LEVEL = (0.35, 0.65)
"""Brightness of backgrounds, of 1."""
GROUND_TINT = 0.1
TEXTURE = 0.06
"""How far a background's two brightnesses lie apart, at most."""
TEXTURE_TINT = 0.03
INK_GAP = (0.3, 0.5)
"""Brightness between ink and background; ink is lighter or darker, evenly often."""
INK_TINT = 0.1
DIGIT_HEIGHT = (18.0, 28.0)
"""Height of digits, in pixels; they stand anywhere inside the image."""
TURN = 15.0
"""Largest rotation either way, in degrees."""
_TEXTURE_OCTAVES = ((3, 1.0), (6, 0.6), (13, 0.35))


def write_samples(folder: Path, *, count: int = DEFAULT_COUNT, seed: int = 0) -> None:
    """Writes `count` PNG and JPEG images under `train/` and `test/`; same arguments, same bytes.

    `folder` must be empty or new. Image i shows one scan; scans repeat, differently placed, once
    all of their side are used. Raises `UserError` for a count below 20 or a folder with content.
    """
    folder = Path(folder)
    if count < 20:
        raise UserError(f"count: {count} is too few; write at least 20 images")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"folder: {folder} is not empty; name a new one")
    scans, labels = digit_scans()
    order = shuffled(np.arange(len(scans)), len(scans), "sample split", seed)
    held = round(len(scans) * TEST_SHARE)
    tests = round(count * TEST_SHARE)
    table = [("path", "label", "split", "caption")]
    for side, rows, n in (("test", order[:held], tests), ("train", order[held:], count - tests)):
        for i in range(n):
            scan = int(rows[i % len(rows)])
            place = folder / side / str(labels[scan])
            place.mkdir(parents=True, exist_ok=True)
            scene = draw_scene(scans[scan], generator("sample scene", seed, side, i))
            # Both formats in every class; JPEG loses a little, as photographs do.
            suffix = "png" if i % 2 else "jpg"
            file = place / f"{side}-{i:05d}.{suffix}"
            file.write_bytes(_encoded(scene.pixels, suffix))
            digit = str(labels[scan])
            table.append((f"{side}/{digit}/{file.name}", digit, side, scene.caption(int(digit))))
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows(table)


WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Scene:
    """An image, and what it shows.

    `pixels` uint8 `[SIDE, SIDE, 3]`; `ink` is how much of each pixel the digit covers, `[SIDE,
    SIDE]` in 0..1; `light` whether it is lighter than the ground; `height` in pixels.
    """

    pixels: np.ndarray
    ink: np.ndarray
    light: bool
    height: float

    def caption(self, digit: int) -> str:
        """What the scene shows: "a small light seven"."""
        size = "small" if self.height < sum(DIGIT_HEIGHT) / 2 else "large"
        return f"a {size} {'light' if self.light else 'dark'} {WORDS[digit]}"


def digit_scans() -> tuple[np.ndarray, np.ndarray]:
    """1797 scans in 0..1, float64 `[N, 8, 8]`, and their digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16.0, digits.target


def draw_scene(scan: np.ndarray, rng: np.random.Generator) -> Scene:
    """One scene from a scan `[8, 8]` in 0..1."""
    ground = _background(rng)
    ink, gap = _ink(ground, rng)
    covered, height = _placed(scan, rng)
    mask = covered[:, :, None]
    scene = ground * (1 - mask) + ink * mask
    scene += rng.normal(0, 0.02, scene.shape)
    pixels = (scene.clip(0, 1) * 255).round().astype(np.uint8)
    return Scene(pixels, covered, gap > 0, height)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of several widths between two colours, float64 `[SIDE, SIDE, 3]` in 0..1."""
    noise = sum(
        weight * _enlarged(rng.uniform(-1, 1, (cells, cells)), SIDE)
        for cells, weight in _TEXTURE_OCTAVES
    )
    blend = (0.5 + 0.5 * noise)[:, :, None]
    base = rng.uniform(*GROUND_LEVEL) + rng.uniform(-GROUND_TINT, GROUND_TINT, 3)
    other = base + rng.uniform(-TEXTURE, TEXTURE) + rng.uniform(-TEXTURE_TINT, TEXTURE_TINT, 3)
    return base * (1 - blend) + other * blend


def _ink(ground: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A colour lighter or darker than the background's mean, and by how much."""
    gap = rng.uniform(*INK_GAP) * (1 if rng.uniform() < 0.5 else -1)
    return ground.mean((0, 1)) + gap + rng.uniform(-INK_TINT, INK_TINT, 3), gap


def _placed(scan: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Ink coverage `[SIDE, SIDE]` in 0..1 of the scan, scaled, turned and moved; its height."""
    height = rng.uniform(*DIGIT_HEIGHT)
    angle = np.deg2rad(rng.uniform(-TURN, TURN))
    room = (SIDE - height) / 2
    centre = SIDE / 2 + rng.uniform(-room, room, 2)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    dy, dx = y - centre[0], x - centre[1]
    u = (np.cos(angle) * dx + np.sin(angle) * dy) / height
    v = (np.cos(angle) * dy - np.sin(angle) * dx) / height
    coverage = _bilinear(np.pad(scan, 2), v * 8 + 6, u * 8 + 6)
    # The scans are soft; a steeper edge gives strokes.
    return ((coverage - 0.25) * 2.0).clip(0, 1), height


def _bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values of `image` at pixel-centre coordinates, edges repeated."""
    height, width = image.shape
    y, x = (y - 0.5).clip(0, height - 1.001), (x - 0.5).clip(0, width - 1.001)
    top, left = y.astype(np.int64), x.astype(np.int64)
    b, a = y - top, x - left
    upper = image[top, left] * (1 - a) + image[top, left + 1] * a
    lower = image[top + 1, left] * (1 - a) + image[top + 1, left + 1] * a
    return upper * (1 - b) + lower * b


def _enlarged(cells: np.ndarray, side: int) -> np.ndarray:
    """A small grid of numbers, interpolated to `[side, side]`."""
    step = (np.arange(side) + 0.5) * cells.shape[0] / side
    return _bilinear(cells, step[:, None], step[None, :])


def _encoded(image: np.ndarray, suffix: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    if suffix == "png":
        Image.fromarray(image).save(stream, "PNG")
    else:
        Image.fromarray(image).save(stream, "JPEG", quality=92)
    return stream.getvalue()
