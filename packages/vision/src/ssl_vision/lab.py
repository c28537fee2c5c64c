"""CIE Lab colours, and the bins of colour that a display can show."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_WHITE = (0.95047, 1.0, 1.08883)
"""The D65 white point of sRGB."""


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] `[B, 3, ...]` to Lab: L in [0, 100], a and b about within ±110."""
    x = rgb.movedim(1, -1)
    linear = torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    xyz = linear @ x.new_tensor(_TO_XYZ).T / x.new_tensor(_WHITE)
    cube = torch.where(
        xyz > (6 / 29) ** 3, xyz.clamp(min=0) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29
    )
    first, second, third = cube.unbind(-1)
    lab = torch.stack([116 * second - 16, 500 * (first - second), 200 * (second - third)], dim=-1)
    return lab.movedim(-1, 1)


@cache
def colour_bins(step: int = 10) -> tuple[tuple[int, int], ...]:
    """Multiples (a, b) of `step` nearest to some sRGB colour, in ascending order."""
    levels = torch.linspace(0, 1, 64)
    cube = torch.cartesian_prod(levels, levels, levels)
    nearest = (rgb_to_lab(cube)[:, 1:] / step).round().to(torch.int64) * step
    return tuple((a, b) for a, b in nearest.unique(dim=0).tolist())
