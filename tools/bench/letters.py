"""A second labelled set for `learning.py`: capital letters in many typefaces, in cluttered scenes.

The typefaces ship with matplotlib. Held-out images show typefaces that no training image does, so
that what counts is the letter and not the shape of one font.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_core.rng import generator

SIDE = 40
"""Height and width of the images, in pixels: those of the embedded digits."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TRAIN_FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
TEST_FACES = ("DejaVuSerif", "DejaVuSerif-Bold", "cmr10", "cmss10", "cmtt10", "cmti10")
COUNT = 5000
TEST_SHARE = 0.2
_HEIGHT = (16, 28)
"""Size of the type in pixels."""
_TURN = 15.0
"""Largest rotation either way, in degrees."""


def write_letters(folder: Path, *, count: int = COUNT, seed: int = 0) -> None:
    """Writes `count` PNG images under `train/<letter>/` and `test/<letter>/`."""
    tests = round(count * TEST_SHARE)
    for side, faces, n in (("train", TRAIN_FACES, count - tests), ("test", TEST_FACES, tests)):
        for i in range(n):
            letter = LETTERS[i % len(LETTERS)]
            face = faces[i // len(LETTERS) % len(faces)]
            place = folder / side / letter
            place.mkdir(parents=True, exist_ok=True)
            picture = draw_letter(letter, face, generator("letter", seed, side, i))
            Image.fromarray(picture).save(place / f"{i:05d}.png")


def draw_letter(letter: str, face: str, random: np.random.Generator) -> np.ndarray:
    """A letter on a mottled ground, lighter or darker than it: uint8 `[SIDE, SIDE, 3]`."""
    cells = Image.fromarray(random.integers(0, 256, (6, 6), np.uint8))
    mottle = np.asarray(cells.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) / 255 - 0.5
    base = random.uniform(0.35, 0.65) + random.uniform(-0.1, 0.1, 3)
    ground = base + mottle[:, :, None] * random.uniform(0.0, 0.12)
    gap = random.uniform(0.3, 0.5) * random.choice([-1, 1])
    ink = base + gap + random.uniform(-0.1, 0.1, 3)
    cover = _cover(letter, face, random)[:, :, None]
    scene = ground * (1 - cover) + ink * cover + random.normal(0, 0.02, (SIDE, SIDE, 3))
    return (scene.clip(0, 1) * 255).round().astype(np.uint8)


def _cover(letter: str, face: str, random: np.random.Generator) -> np.ndarray:
    """How much of each pixel the letter covers, `[SIDE, SIDE]` in 0..1."""
    font = _font(face, int(random.integers(*_HEIGHT)))
    sheet = Image.new("L", (2 * SIDE, 2 * SIDE))
    ImageDraw.Draw(sheet).text((SIDE, SIDE), letter, fill=255, font=font, anchor="mm")
    sheet = sheet.rotate(random.uniform(-_TURN, _TURN), Image.Resampling.BILINEAR)
    box = sheet.getbbox()
    assert box is not None, f"{face} has no {letter}"
    glyph = sheet.crop(box)
    out = Image.new("L", (SIDE, SIDE))
    room = (max(1, SIDE - glyph.width), max(1, SIDE - glyph.height))
    out.paste(glyph, tuple(int(random.integers(free)) for free in room))
    return np.asarray(out) / 255


@cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{face}.ttf", size)
