"""Many small pictures in one PNG file, within a budget of bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ssl_core.report.pictures import png, stacked

COLUMNS = 25
BUDGET = 1_300_000
COLUMN_BUDGET = 700_000
"""Bytes of the sheet, and of all columns: with base64 (4/3) a page stays below 3 MB."""
_HEIGHTS = (96, 72, 56, 44, 32, 24, 16)
_COLUMN_HEIGHTS = (224, 160, 112, 80, 56, 40)
_WIDEST = 4.0
"""Largest width of a cell, in heights; wider pictures are scaled into it."""
_TRIED = 48
_EDGE = 127


def sprite(pictures: Sequence[np.ndarray], *, budget: int = BUDGET) -> tuple[bytes, list[int]]:
    """A PNG file of uint8 pictures `[H, W]` or `[H, W, 3]`, `COLUMNS` in a row, and [width, height]
    of a cell.

    Cells have the pictures' median shape; a picture is scaled into its cell, never up, and grey
    fills what is left. The largest size that fits the budget is taken, the smallest if none does.
    """
    colour = [_coloured(picture) for picture in pictures]
    aspect = float(np.clip(np.median([p.shape[1] / p.shape[0] for p in colour]), 0.25, _WIDEST))
    tallest = max(p.shape[0] for p in colour)
    sizes = [height for height in _HEIGHTS if height <= tallest] or [_HEIGHTS[-1]]
    if tallest < _HEIGHTS[0]:
        sizes.insert(0, tallest)
    few = colour[:: math.ceil(len(colour) / _TRIED)]
    for height in sizes:
        cell = [max(1, round(height * aspect)), height]
        last = height == sizes[-1]
        # Compressing all of them only to find them too large would cost seconds.
        if not last and len(png(_sheet(few, cell))) * len(colour) / len(few) > 1.1 * budget:
            continue
        file = png(_sheet(colour, cell))
        if last or len(file) <= budget:
            return file, cell
    raise AssertionError("the smallest size always returns")


def columns(
    drawn: Mapping[str, Sequence[np.ndarray]], *, budget: int = COLUMN_BUDGET
) -> dict[str, bytes]:
    """Caption -> a PNG file of its pictures below one another, all files within the budget.

    Pictures keep their size where that fits, and else shrink together, step by step.
    """
    files: dict[str, bytes] = {}
    for height in (1 << 14, *_COLUMN_HEIGHTS):
        files = {
            caption: png(
                stacked([fitted(_coloured(p), round(_WIDEST * height), height) for p in pictures])
            )
            for caption, pictures in drawn.items()
        }
        if sum(map(len, files.values())) <= budget:
            break
    return files


def _coloured(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else picture[..., None].repeat(3, 2)


def _sheet(pictures: Sequence[np.ndarray], cell: Sequence[int]) -> np.ndarray:
    """The pictures in rows of `COLUMNS` cells: uint8 `[H, W, 3]`."""
    width, height = cell
    rows = math.ceil(len(pictures) / COLUMNS)
    sheet = np.full((rows * height, min(COLUMNS, len(pictures)) * width, 3), _EDGE, np.uint8)
    for number, picture in enumerate(pictures):
        small = fitted(picture, width, height)
        top = number // COLUMNS * height + (height - small.shape[0]) // 2
        left = number % COLUMNS * width + (width - small.shape[1]) // 2
        sheet[top : top + small.shape[0], left : left + small.shape[1]] = small
    return sheet


def fitted(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """`[H, W, 3]` scaled down (never up) to fit, with antialias; its shape is kept."""
    scale = min(1.0, width / picture.shape[1], height / picture.shape[0])
    if scale == 1.0:
        return picture
    size = [max(1, round(side * scale)) for side in picture.shape[:2]]
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    small = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0]
    out: np.ndarray = small.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return out
