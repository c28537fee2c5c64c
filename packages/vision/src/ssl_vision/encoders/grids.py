"""Where tokens lie that come as a plain sequence."""

from __future__ import annotations

import math


def square_cells(sides: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The grid of `count` square cells that cover an image; () where there is none."""
    height, width = sides
    cell = math.isqrt(height * width // count) if count else 0
    if cell and (height // cell) * (width // cell) == count:
        return height // cell, width // cell
    return ()
