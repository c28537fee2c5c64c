"""A small labelled set of real image files: scanned digits placed in cluttered scenes.

The digits are scikit-learn's (8 x 8 scans of handwriting, UCI). Each is scaled, turned, coloured
and put somewhere on a textured background, so that raw pixels say little about the class and a
representation has to ignore place, size, colour and clutter. Every scan belongs to one side:
`train/<class>/` and `test/<class>/` never show the same handwriting sample.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator, shuffled

SIDE = 40
"""Height and width of the images, in pixels."""
TEST_SHARE = 0.2
DEFAULT_COUNT = 6000
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
    scans, labels = _scans()
    order = shuffled(np.arange(len(scans)), len(scans), "sample split", seed)
    held = round(len(scans) * TEST_SHARE)
    tests = round(count * TEST_SHARE)
    for side, rows, n in (("test", order[:held], tests), ("train", order[held:], count - tests)):
        for i in range(n):
            scan = int(rows[i % len(rows)])
            place = folder / side / str(labels[scan])
            place.mkdir(parents=True, exist_ok=True)
            image = draw_scene(scans[scan], generator("sample scene", seed, side, i))
            # Both formats in every class; JPEG loses a little, as photographs do.
            suffix = "png" if i % 2 else "jpg"
            (place / f"{side}-{i:05d}.{suffix}").write_bytes(_encoded(image, suffix))


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """1797 scans in 0..1, float64 `[N, 8, 8]`, and their digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images / 16.0, digits.target


def draw_scene(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One scene, uint8 `[SIDE, SIDE, 3]`, from a scan `[8, 8]` in 0..1."""
    ground = _background(rng)
    ink = _ink(ground, rng)
    mask = _placed(scan, rng)[:, :, None]
    scene = ground * (1 - mask) + ink * mask
    scene += rng.normal(0, 0.02, scene.shape)
    return (scene.clip(0, 1) * 255).round().astype(np.uint8)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of several widths between two colours, float64 `[SIDE, SIDE, 3]` in 0..1."""
    noise = sum(
        weight * _enlarged(rng.uniform(-1, 1, (cells, cells)), SIDE)
        for cells, weight in _TEXTURE_OCTAVES
    )
    blend = (0.5 + 0.5 * noise)[:, :, None]
    base = rng.uniform(0.15, 0.85, 3)
    other = (base + rng.uniform(-0.22, 0.22, 3)).clip(0.05, 0.95)
    return base * (1 - blend) + other * blend


def _ink(ground: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour whose brightness stands off from the background's mean, lighter or darker."""
    mean = ground.mean()
    gap = rng.uniform(0.3, 0.5)
    bright = mean < 0.5 if rng.uniform() < 0.8 else mean >= 0.5
    level = mean + gap if bright else mean - gap
    return np.clip(level + rng.uniform(-0.15, 0.15, 3), 0, 1)


def _placed(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ink coverage `[SIDE, SIDE]` in 0..1 of the scan, scaled, turned and moved at random."""
    height = rng.uniform(20, 32)
    angle = np.deg2rad(rng.uniform(-25, 25))
    shear = rng.uniform(-0.15, 0.15)
    room = (SIDE - height) / 2 + 1
    centre = SIDE / 2 + rng.uniform(-room, room, 2)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    dy, dx = y - centre[0], x - centre[1]
    u = (np.cos(angle) * dx + np.sin(angle) * dy) / height
    v = (np.cos(angle) * dy - np.sin(angle) * dx) / height
    u = u + shear * v
    coverage = _bilinear(np.pad(scan, 2), v * 8 + 6, u * 8 + 6)
    # The scans are soft; a steeper edge gives strokes.
    return ((coverage - 0.25) * 2.0).clip(0, 1)


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
