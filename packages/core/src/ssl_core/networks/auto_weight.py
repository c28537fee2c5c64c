"""Weights of several losses that are learned with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class AutoWeight(nn.Module):
    """sum_i L_i / (2 s_i^2) + log(1 + s_i^2), s_i learned from 1 (Liebel & Körner 2018).

    A form of Kendall et al. 2018 that never falls below zero. A larger L_i ends with a larger s_i,
    a smaller weight: for a constant one L (1 + s^2) = 2 s^4.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(count))

    def forward(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weighted parts, in float32, each with its own penalty."""
        square = self.scale.float().square()
        pairs = zip(parts.items(), square, strict=True)
        return {name: part.float() / (2 * s) + torch.log1p(s) for (name, part), s in pairs}
