"""Maskers that hide neighbours together: tubes, squares of cells, BEiT's rectangles.

Every sample hides the same number of tokens, whatever its draw, so that all of them serve drop
mode; nothing asks the device for a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.networks.masks import Mask, Mode, RandomMasker, mask_from_hidden
from ssl_core.rng import Rng


@dataclass(frozen=True)
class TubeMasker:
    """`base` on the other axes of the grid, repeated along the axes `along`.

    Along time this is VideoMAE's tube mask (Tong et al. 2022: `RandomMasker(0.9,
    count_rule="floor")`); along frequency it hides whole frames of a spectrogram. The mode is the
    base's.
    """

    base: RandomMasker | SquareMasker | BlockMasker
    along: tuple[int, ...] = (0,)

    @property
    def mode(self) -> Mode:
        return self.base.mode

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask:
        _needs_grid("a tube mask", grid, maskable)
        along = {axis % len(grid) for axis in self.along if -len(grid) <= axis < len(grid)}
        if len(along) != len(self.along) or len(along) == len(grid):
            raise UserError(f"tube mask along axes {self.along}: the tokens have {len(grid)} axes")
        slot = tuple(side for axis, side in enumerate(grid) if axis not in along)
        mask = self.base(rng, math.prod(slot), grid=slot)
        cells = mask.hidden.reshape(-1, *[1 if a in along else n for a, n in enumerate(grid)])
        hidden = cells.expand(-1, *grid).flatten(1)
        keep = 0 if mask.ids_keep is None else mask.ids_keep.shape[1] * (count // math.prod(slot))
        return mask_from_hidden(hidden, keep, mode=mask.mode, grid=grid)


@dataclass(frozen=True)
class SquareMasker:
    """Squares of `block` cells a side (cubes, spans) until a share `ratio` is hidden.

    With `inverse` the squares are what stays visible (data2vec 2.0, Baevski et al. 2023; EAT).
    As released, int(N (share + adjust) / block^axes) centres are drawn with replacement, squares
    are cut off at the border and may overlap; single cells, chosen at random, then make up for
    the difference from the exact count int(N share), where the share is that of the squares.
    """

    ratio: float
    block: int = 3
    adjust: float = 0.0
    inverse: bool = False
    mode: Mode = "drop"

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)
        if self.block < 1:
            raise ValueError(f"mask block must be at least 1 token a side, got {self.block}")

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask:
        _needs_grid("a block mask", grid, maskable)
        share = 1 - self.ratio if self.inverse else self.ratio
        covered = _check_count("mask ratio", self.ratio, int(count * share), count)
        centres = max(1, int(count * (share + self.adjust) / self.block ** len(grid)))
        places = rng.integers("mask blocks", centres, high=count)
        cells = torch.zeros(len(rng), count, dtype=torch.bool, device=rng.device)
        cells = cells.scatter_(1, places, True).reshape(-1, *grid)
        offset = self.block // 2
        for axis in range(1, cells.dim()):
            cells = spread(cells, axis, before=offset, after=self.block - 1 - offset)
        chosen = lowest(rng.uniform("mask", count) + (~cells).flatten(1), covered)
        hidden = ~chosen if self.inverse else chosen
        keep = count - covered if not self.inverse else covered
        return mask_from_hidden(hidden, keep, mode=self.mode, grid=grid)


@dataclass(frozen=True)
class BlockMasker:
    """BEiT's rectangles (Bao et al. 2022) on the last two axes of a grid of two.

    Areas lie between `least` tokens and what is still missing, aspects (log-uniform) between
    `aspect` and 1/`aspect`; a rectangle that hides nothing new or too much is drawn again, up to
    `tries` times. Neighbours of what is hidden then fill up to the exact int(N ratio), as CAE's
    loop does; the released code stops below it when ten tries fail.
    """

    ratio: float
    least: int = 16
    aspect: float = 0.3
    tries: int = 24
    mode: Mode = "replace"

    def __post_init__(self) -> None:
        _check_ratio(self.ratio)
        if self.least < 1 or not 0 < self.aspect <= 1:
            raise ValueError(f"need least >= 1 and 0 < aspect <= 1, got {self}")

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask:
        _needs_grid("a block mask", grid, maskable)
        if len(grid) != 2:
            raise UserError(
                f"block masks need tokens on 2 axes, got {len(grid)}; use squares, or tubes of them"
            )
        total = _check_count("mask ratio", self.ratio, int(count * self.ratio), count)
        final = lowest(self.order(rng, total, grid), total)
        return mask_from_hidden(final, count - total, mode=self.mode, grid=grid)

    def order(self, rng: Rng, total: int | Tensor, grid: tuple[int, ...]) -> Tensor:
        """Scores `[B, N]`: the lowest `total` (a number, or int64 `[B]`) are the rectangles."""
        hidden = torch.zeros(len(rng), *grid, dtype=torch.bool, device=rng.device)
        for attempt in range(self.tries):
            hidden = self._with_one_more(hidden, total, rng.fold("mask block", attempt))
        near = hidden
        for axis in (1, 2):
            near = spread(near, axis, before=1, after=1)
        noise = rng.uniform("mask", math.prod(grid)) + (~near).flatten(1)
        return torch.where(hidden.flatten(1), -1.0, noise)

    def _with_one_more(self, hidden: Tensor, total: int | Tensor, rng: Rng) -> Tensor:
        missing = total - hidden.sum((1, 2))  # [B]
        limit = math.log(1 / self.aspect)
        area = self.least + rng.uniform("area") * (missing - self.least).clamp(min=0)
        aspect = rng.uniform("aspect", low=-limit, high=limit).exp()
        sides = ((area * aspect).sqrt(), (area / aspect).sqrt())
        block: Tensor | None = None
        fits = missing > 0
        for axis, (side, size) in enumerate(zip(sides, hidden.shape[1:], strict=True)):
            length = side.round().to(torch.int64).clamp(min=1)
            fits = fits & (length < size)
            start = rng.integers(axis, high=(size - length + 1).clamp(min=1))
            index = torch.arange(size, device=hidden.device)
            inside = (index >= start[:, None]) & (index < (start + length)[:, None])
            block = inside if block is None else block[:, :, None] & inside[:, None, :]
        assert block is not None
        new = (block & ~hidden).sum((1, 2))
        fits = fits & (new > 0) & (new <= missing)
        return hidden | (block & fits[:, None, None])


@dataclass(frozen=True)
class VariedBlockMasker:
    """Rectangles on a share of the images, each with a ratio of its own (iBOT, DINOv2).

    An image is masked with probability `share`; the ratio of one that is lies uniformly between
    the two of `ratio`. The numbers hidden differ, so that this needs replace mode. `kind` "random"
    hides single tokens instead, on any number of axes (iBOT's other mask).
    """

    share: float = 0.5
    ratio: tuple[float, float] = (0.1, 0.5)
    least: int = 4
    mode: Mode = "replace"
    kind: Literal["blocks", "random"] = "blocks"

    def __post_init__(self) -> None:
        low, high = self.ratio
        if not 0 < self.share <= 1 or not 0 < low <= high < 1 or self.mode != "replace":
            raise ValueError(
                f"need 0 < share <= 1, 0 < ratio[0] <= ratio[1] < 1 and replace mode, got {self}"
            )
        if self.kind not in ("blocks", "random"):
            raise ValueError(f"mask must be 'blocks' or 'random', got {self.kind!r}")

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask:
        _needs_grid("a block mask", grid, maskable)
        if self.kind == "blocks" and len(grid) != 2:
            raise UserError(
                f"block masks need tokens on 2 axes, got {len(grid)}; use the mask random"
            )
        drawn = rng.uniform("mask ratio", low=self.ratio[0], high=self.ratio[1])
        total = (count * drawn).floor().to(torch.int64).clamp(min=1)
        total = total * rng.bernoulli("masked", p=self.share)
        if self.kind == "random":
            score = rng.uniform("order", count)
        else:
            score = BlockMasker(self.ratio[1], least=self.least).order(rng, total, grid)
        place = score.argsort(dim=1, stable=True).argsort(dim=1)
        return Mask(place < total[:, None], self.mode, grid)


def spread(cells: Tensor, axis: int, *, before: int, after: int) -> Tensor:
    """Cells (bool `[B, *grid]`), and those up to `before` below and `after` above on an axis."""
    last = cells.movedim(axis, -1)
    padded = F.pad(last.to(torch.float32), (after, before))
    return padded.unfold(-1, before + after + 1, 1).amax(-1).bool().movedim(-1, axis)


def lowest(score: Tensor, count: int) -> Tensor:
    """True at the `count` lowest entries of every row, bool `[B, N]`."""
    order = score.argsort(dim=1, stable=True)
    return torch.zeros_like(score, dtype=torch.bool).scatter_(1, order[:, :count], True)


def _needs_grid(what: str, grid: tuple[int, ...], maskable: Tensor | None) -> None:
    if maskable is not None or not grid:
        raise UserError(f"{what} needs tokens on a grid, all of them real; use a random mask")


def _check_ratio(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise ValueError(f"mask ratio must lie between 0 and 1 exclusive, got {ratio}")


def _check_count(what: str, value: float, chosen: int, count: int) -> int:
    if not 0 < chosen < count:
        raise UserError(
            f"{what} {value} leaves no token hidden or none visible of {count}; "
            "change the ratio, the patch or the input size"
        )
    return chosen
