"""Two small labelled sets of image files for `learning.py`, from what installed packages ship.

Both are dark on white, so that a race of some minutes shows what is learned; the embedded digits
in cluttered scenes, on which the recipes were chosen, take several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssl_core.rng import generator, shuffled
from ssl_vision.samples import digit_scans

SIDE = 32
"""Height and width of the images, in pixels."""
SCANS_HELD = 359
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TRAIN_FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
TEST_FACES = ("DejaVuSerif", "DejaVuSerif-Bold", "cmr10", "cmss10", "cmtt10", "cmti10")
LETTER_COUNTS = {"train": 3000, "test": 780}
_HEIGHT = (22, 30)
"""Size of the type in pixels."""
_TURN = 10.0
"""Largest rotation of a letter either way, in degrees."""

Sample = tuple[str, str, np.ndarray]
"""Side ("train" or "test"), class, and ink 0..255 of each pixel, `[SIDE, SIDE]`."""


def scans() -> Iterator[Sample]:
    """scikit-learn's 1797 scanned digits as they are, but 32 pixels high; a fifth held out."""
    pixels, digits = digit_scans()
    order = shuffled(np.arange(len(pixels)), len(pixels), "scans", 0)
    for place, row in enumerate(order):
        ink = Image.fromarray((255 * pixels[row]).round().astype(np.uint8))
        large = np.asarray(ink.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        yield "test" if place < SCANS_HELD else "train", str(digits[row]), large


def letters() -> Iterator[Sample]:
    """Capital letters in typefaces of matplotlib's; those of the held-out are in no other image."""
    for side, faces in (("train", TRAIN_FACES), ("test", TEST_FACES)):
        for i in range(LETTER_COUNTS[side]):
            letter = LETTERS[i % len(LETTERS)]
            face = faces[i // len(LETTERS) % len(faces)]
            yield side, letter, _letter(letter, face, generator("letter", side, i))


SETS: Mapping[str, Callable[[], Iterator[Sample]]] = {"scans": scans, "letters": letters}


def write(name: str, folder: Path) -> None:
    """Writes a set as `<side>/<class>/<number>.png`, in RGB, as all of the candidates read it."""
    for i, (side, label, ink) in enumerate(SETS[name]()):
        place = folder / side / label
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - ink).convert("RGB").save(place / f"{i:05d}.png")


def _letter(letter: str, face: str, random: np.random.Generator) -> np.ndarray:
    font = _font(face, int(random.integers(*_HEIGHT)))
    sheet = Image.new("L", (2 * SIDE, 2 * SIDE))
    ImageDraw.Draw(sheet).text((SIDE, SIDE), letter, fill=255, font=font, anchor="mm")
    sheet = sheet.rotate(random.uniform(-_TURN, _TURN), Image.Resampling.BILINEAR)
    middle = (SIDE // 2, SIDE // 2, 3 * SIDE // 2, 3 * SIDE // 2)
    return np.asarray(sheet.crop(middle))


@cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{face}.ttf", size)
