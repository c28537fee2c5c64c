"""Spans of tokens hidden together, in sequences of equal or unequal length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.networks.grid_masks import spread
from ssl_core.networks.masks import Mask, Mode
from ssl_core.rng import Rng


@dataclass(frozen=True)
class SpanMasker:
    """wav2vec 2.0's spans (Baevski et al. 2020), for tokens on one axis; replace mode.

    int(ratio T / length + u) starts, u uniform, at least `least`, are chosen without replacement
    among the places where a whole span of maskable tokens fits; spans may overlap, so that fewer
    than `ratio` of the T maskable tokens are hidden (49 % at 0.65 and length 10). A sample too
    short for one span hides its first maskable token alone. The released code then trims all
    samples of a batch to the least number hidden; here a mask does not depend on its batch.
    """

    ratio: float
    length: int = 10
    least: int = 1
    mode: Mode = "replace"

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1 or self.length < 1 or self.least < 1:
            raise ValueError(f"need 0 < ratio <= 1, length >= 1 and least >= 1, got {self}")
        if self.mode != "replace":
            raise ValueError("spans hide unequal numbers: they need mode='replace'")

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask:
        if len(grid) > 1:
            raise UserError(f"spans need tokens on one axis, got a grid of {len(grid)}")
        if maskable is None:
            maskable = torch.ones(len(rng), count, dtype=torch.bool, device=rng.device)
        own = maskable.sum(1)
        blocked = spread(~maskable, 1, before=self.length - 1, after=0)
        index = torch.arange(count, device=rng.device)
        fits = ~blocked & (index <= count - self.length)
        first = maskable & (maskable.cumsum(1) == 1)
        fits = torch.where(fits.any(1, keepdim=True), fits, first)
        spans = (own * (self.ratio / self.length) + rng.uniform("span count")).floor()
        noise = rng.uniform("mask", count).masked_fill(~fits, 2.0)
        place = noise.argsort(dim=1, stable=True).argsort(dim=1)
        starts = (place < spans.clamp(min=self.least)[:, None]) & fits
        hidden = spread(starts, 1, before=0, after=self.length - 1) & maskable
        return Mask(hidden, self.mode, grid)
