"""Blocks to predict and the context to predict them from (I-JEPA, V-JEPA)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.networks.masks import Mask
from ssl_core.rng import Rng, key_of


@dataclass(frozen=True)
class Blocks:
    """What a sample shows and what is predicted from it, as places on a token grid.

    `context` is int64 `[B, K]`, `targets` int64 `[B, T, M]`: T groups of M places, each predicted
    on its own. No place is in both. Where a sample has fewer than K (or M) places its own are
    repeated, which neither adds information nor a place to learn from.
    """

    context: Tensor
    targets: Tensor
    grid: tuple[int, ...]

    def mask(self) -> Mask:
        """The drop mask that shows an encoder the context alone."""
        rows, count = self.context.shape[0], math.prod(self.grid)
        hidden = torch.ones(rows, count, dtype=torch.bool, device=self.context.device)
        return Mask(hidden.scatter_(1, self.context, False), "drop", self.grid, self.context)


@dataclass(frozen=True)
class MultiBlockMasker:
    """`targets` blocks of one size, and a context without them (Assran et al. 2023).

    A block covers a share `scale` of the last two axes with an aspect (height / width) in
    `aspect`, and the whole of the axes before (V-JEPA, Bardes et al. 2024); on one axis it is a
    span. As released, sizes are drawn once a step, scale and aspect from one number, and places
    once a sample. The context is a block of `context_scale`, or with None the whole input, minus
    all targets, cut to a share `keep` of the grid. With `union` the targets are one group, cut to
    a share `predict` (V-JEPA).

    Released code cuts to the smallest context of the batch, from the end; here the length is
    fixed, so that a sample does not depend on its batch, and the cut starts anywhere. Of `tries`
    placements the first with enough context is taken.
    """

    targets: int = 4
    scale: tuple[float, float] = (0.15, 0.2)
    aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] | None = (0.85, 1.0)
    keep: float = 0.3
    union: bool = False
    predict: float = 0.5
    tries: int = 8

    def __post_init__(self) -> None:
        if self.targets < 1 or not 0 < self.keep < 1 or not 0 < self.predict < 1:
            raise ValueError(f"need targets >= 1, 0 < keep < 1 and 0 < predict < 1, got {self}")

    def __call__(self, rng: Rng, grid: tuple[int, ...], *, step: int) -> Blocks:
        """Blocks for `len(rng)` samples of tokens on `grid` at one step of a run."""
        if not grid:
            raise UserError("blocks to predict need tokens on a grid of equal size")
        flat = grid[-2:]
        cells, before = math.prod(flat), math.prod(grid[:-2])
        height, width = block_sides(_unit("target", step), flat, self.scale, self.aspect)
        keep = max(1, round(self.keep * cells))
        if cells - height * width < keep:
            raise UserError(
                f"blocks of {height}x{width} tokens leave less than {keep} of {cells} as context; "
                "use a smaller patch, a smaller target scale or a smaller keep"
            )
        placed = _placed(rng, "target", (self.tries, self.targets), (height, width), flat)
        taken = placed.any(2)  # [B, tries, cells]
        context = ~taken
        if self.context_scale is not None:
            sides = block_sides(_unit("context", step), flat, self.context_scale, (1.0, 1.0))
            context &= _placed(rng, "context", (self.tries,), sides, flat)
        # The earliest placement among those with the most context, counted up to what is needed.
        order = torch.arange(self.tries, device=rng.device)
        best = (context.sum(2).clamp(max=keep) * self.tries - order).argmax(1)
        rows = torch.arange(len(rng), device=rng.device)
        start = rng.integers("cut", high=cells)
        shown = some_of(context[rows, best], keep, start)
        if self.union:
            count = max(1, round(self.predict * cells))
            hidden = some_of(taken[rows, best], count, start).unsqueeze(1)
        else:
            blocks = placed[rows, best].flatten(0, 1)  # [B T, cells]
            hidden = some_of(blocks, height * width).unflatten(0, (-1, self.targets))
        return Blocks(_through(shown, before, cells), _through(hidden, before, cells), grid)


def block_sides(
    unit: float, grid: tuple[int, ...], scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[int, int]:
    """Height and width in tokens of a block, from one number in [0, 1) (I-JEPA's rule).

    A block never spans an axis of the grid, except that of a single row.
    """
    area = int(math.prod(grid) * (scale[0] + unit * (scale[1] - scale[0])))
    if len(grid) == 1:
        return 1, max(1, min(area, grid[0] - 1))
    ratio = aspect[0] + unit * (aspect[1] - aspect[0])
    height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    return max(1, min(height, grid[0] - 1)), max(1, min(width, grid[1] - 1))


def some_of(chosen: Tensor, count: int, start: Tensor | None = None) -> Tensor:
    """`count` places where `chosen` (bool `[B, N]`) is True, int64 `[B, count]`.

    The first ones in raster order from `start` (int64 `[B]`), around the end; repeated where a
    row has fewer.
    """
    length = chosen.shape[1]
    place = torch.arange(length, device=chosen.device).expand_as(chosen)
    if start is not None:
        place = (place - start[:, None]) % length
    order = torch.where(chosen, place, place + length).argsort(dim=1, stable=True)
    own = chosen.sum(1, keepdim=True).clamp(min=1)
    return order.gather(1, torch.arange(count, device=chosen.device) % own)


def _unit(what: str, step: int) -> float:
    """A number in [0, 1) that all samples of a step share."""
    return (key_of("blocks", what, step) % (1 << 53)) / (1 << 53)


def _placed(
    rng: Rng, what: str, shape: tuple[int, ...], sides: tuple[int, int], grid: tuple[int, ...]
) -> Tensor:
    """Blocks of `sides` at random places, bool `[B, *shape, cells]`."""
    inside = []
    for axis, (side, size) in enumerate(zip(sides[-len(grid) :], grid, strict=True)):
        start = rng.integers(f"{what} {axis}", *shape, high=size - side + 1).unsqueeze(-1)
        index = torch.arange(size, device=rng.device)
        inside.append((index >= start) & (index < start + side))
    if len(grid) == 1:
        return inside[0]
    return (inside[0].unsqueeze(-1) & inside[1].unsqueeze(-2)).flatten(-2)


def _through(places: Tensor, before: int, cells: int) -> Tensor:
    """Places of the last axes, taken at every index of the axes before: `[..., before x n]`."""
    if before == 1:
        return places
    offset = torch.arange(before, device=places.device) * cells
    return (offset[:, None] + places.unsqueeze(-2)).flatten(-2)
