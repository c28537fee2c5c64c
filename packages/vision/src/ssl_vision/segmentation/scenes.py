"""A small set of images with masks: the sample scenes, and which pixels show which digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ssl_core.errors import UserError
from ssl_core.rng import generator
from ssl_vision.samples import SIDE, digit_scans, draw_scene


def write_scenes(folder: Path, *, count: int = 200, seed: int = 0) -> None:
    """Writes `images/*.png` and `masks/*.png`: 0 background, 1 + digit where its ink is.

    `folder` must be empty or new; same arguments, same bytes.
    """
    from PIL import Image

    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"folder: {folder} is not empty; name a new one")
    digits, labels = digit_scans()
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        scan = int(generator("segmented scan", seed, i).integers(len(digits)))
        scene = draw_scene(digits[scan], generator("segmented scene", seed, i))
        assert scene.pixels.shape[:2] == scene.ink.shape == (SIDE, SIDE)
        mask = np.where(scene.ink > 0.5, labels[scan] + 1, 0).astype(np.uint8)
        Image.fromarray(scene.pixels).save(folder / "images" / f"{i:05d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i:05d}.png")
