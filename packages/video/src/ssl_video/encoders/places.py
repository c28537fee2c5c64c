"""Pooling that keeps a coarse layout: means of parts of a clip, side by side.

One mean over a whole clip forgets where and when something was; methods that must name an order of
clips or the place of things cannot learn from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def checked_places(places: Sequence[int]) -> tuple[int, int, int]:
    """Three positive whole numbers: parts of time, height and width; `ValueError` otherwise."""
    found = tuple(places)
    if len(found) != 3 or not all(isinstance(n, int) and n > 0 for n in found):
        raise ValueError(
            f"places must be three positive whole numbers (time, height, width), got {places!r}"
        )
    return found


def by_place(x: Tensor, places: tuple[int, int, int]) -> Tensor:
    """Means of a map `[B, D, t, h, w]` over each of the parts: `[B, D t' h' w']`.

    Parts overlap where a length is no multiple of their number, and repeat where it is smaller.
    """
    if math.prod(places) == 1:
        return x.mean((2, 3, 4))
    return F.adaptive_avg_pool3d(x, places).flatten(1)
