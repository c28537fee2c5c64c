"""Masks: made once, used by encoder, decoder, target and loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.rng import Rng

Mode = Literal["drop", "replace", "mix"]


@dataclass
class Mask:
    """Which tokens are hidden, and how.

    `hidden` (bool `[B, N]`) is what the loss counts. In drop mode the encoder sees only
    `ids_keep` (`[B, K]`, in the order kept) and `ids_restore` (`[B, N]`) puts [kept, hidden] back
    in place; maskers of a fixed share also list the hidden in that order, `ids_hidden` (`[B, H]`).
    In replace mode the encoder sees a mask vector where `replaced` is True (None: at every hidden
    token; BERT keeps or swaps some of them).
    """

    hidden: Tensor
    mode: Mode
    grid: tuple[int, ...] = ()
    ids_keep: Tensor | None = None
    ids_restore: Tensor | None = None
    ids_hidden: Tensor | None = None
    replaced: Tensor | None = None

    @property
    def at_mask_token(self) -> Tensor:
        """Where a mask vector stands in for the content, bool `[B, N]`."""
        return self.hidden if self.replaced is None else self.replaced

    def keep(self, x: Tensor) -> Tensor:
        """The kept rows of `[B, N, ...]`, in drop mode `[B, K, ...]`."""
        assert self.ids_keep is not None, "only masks in drop mode keep a subset"
        return rows_at(x, self.ids_keep)

    def restore(self, kept: Tensor, fill: Tensor) -> Tensor:
        """Kept tokens `[B, K, D]` in their places among `fill` (`[D]`): `[B, N, D]`."""
        assert self.ids_restore is not None, "only masks in drop mode have an order to restore"
        missing = self.ids_restore.shape[1] - kept.shape[1]
        fill = fill.to(kept.dtype).expand(kept.shape[0], missing, kept.shape[-1])
        return rows_at(torch.cat([kept, fill], dim=1), self.ids_restore)

    def concealed(self, x: Tensor) -> Tensor:
        """The hidden rows of `[B, N, ...]`, in drop mode `[B, H, ...]`."""
        return rows_at(x, self.listed_hidden())

    def reveal(self, rows: Tensor, around: Tensor) -> Tensor:
        """Hidden rows `[B, H, D]` in their places among `around` (`[B, N, D]`), in its type."""
        index = self.listed_hidden().unsqueeze(-1).expand(-1, -1, rows.shape[-1])
        return around.scatter(1, index, rows.to(around.dtype))

    def listed_hidden(self) -> Tensor:
        """`ids_hidden` of a mask that has it; `ValueError` for any other."""
        if self.ids_hidden is None:
            raise ValueError("this mask does not list its hidden tokens: use one in drop mode")
        return self.ids_hidden


def rows_at(x: Tensor, ids: Tensor) -> Tensor:
    """The rows of `x` (`[B, N, ...]`, or `[1, N, ...]` for all) at `ids` (int64 `[B, M]`):
    `[B, M, ...]`. That ids lie in [0, N) is not checked: others name another sample's rows."""
    samples, count = x.shape[:2]
    if samples > 1:
        ids = ids + torch.arange(0, samples * count, count, device=ids.device).unsqueeze(1)
    # Whole rows at a time, where `gather` looks up number by number.
    rows: Tensor = x.flatten(0, 1).index_select(0, ids.flatten()).unflatten(0, ids.shape)
    return rows


class Masker(Protocol):
    """Draws a mask for tokens on a grid (or a set of N) with one key a sample."""

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask: ...


def unit_grid(grid: tuple[int, ...], unit: int) -> tuple[int, ...]:
    """How many square units of `unit` tokens a side lie along each axis of a token grid."""
    if not grid or any(side % unit for side in grid):
        shape = "x".join(map(str, grid)) or "a set"
        raise UserError(
            f"mask unit {unit} does not divide the tokens ({shape}); "
            "choose a unit that divides every side, or 1"
        )
    return tuple(side // unit for side in grid)


def mask_from_order(
    order: Tensor, keep: int, *, mode: Mode, grid: tuple[int, ...] = (), unit: int = 1
) -> Mask:
    """The mask that keeps the first `keep` units of each permutation `order` (int64 `[B, n]`).

    In drop mode tokens stay in the order given (of units larger than one, in raster order).
    """
    hidden = torch.ones_like(order, dtype=torch.bool).scatter_(1, order[:, :keep], False)
    if unit > 1:
        hidden = hidden.reshape(-1, *unit_grid(grid, unit))
        for axis in range(1, hidden.dim()):
            hidden = hidden.repeat_interleave(unit, dim=axis)
        return mask_from_hidden(hidden.flatten(1), keep * unit ** len(grid), mode=mode, grid=grid)
    if mode != "drop":
        return Mask(hidden, mode, grid)
    return _dropping(hidden, order, keep, grid)


def mask_from_hidden(hidden: Tensor, keep: int, *, mode: Mode, grid: tuple[int, ...] = ()) -> Mask:
    """The mask that hides `hidden` (bool `[B, N]`), of which every row leaves `keep` visible.

    In drop mode the kept tokens stay in raster order.
    """
    if mode != "drop":
        return Mask(hidden, mode, grid)
    return _dropping(hidden, hidden.to(torch.int8).argsort(dim=1, stable=True), keep, grid)


def _dropping(hidden: Tensor, order: Tensor, keep: int, grid: tuple[int, ...]) -> Mask:
    """The mask whose kept tokens are the first `keep` of `order`, and whose hidden the rest."""
    return Mask(hidden, "drop", grid, order[:, :keep], order.argsort(dim=1), order[:, keep:])


@dataclass(frozen=True)
class RandomMasker:
    """Hides a fixed share of tokens (or of square units of them), chosen uniformly per sample.

    `count_rule` fixes what papers disagree on: "keep_int" keeps int(N(1 - ratio)) tokens (MAE)
    and "keep_round" the nearest number (SparK); "floor" (VideoMAE), "round" and "ceil" (SimMIM)
    apply to the number hidden. `unit` groups grid cells into unit x unit squares that are hidden
    together. With `maskable` (bool `[B, N]`) the share is of each sample's maskable tokens,
    rounded down but at least one; such masks need "replace".
    """

    ratio: float
    mode: Mode = "drop"
    unit: int = 1
    count_rule: Literal["keep_int", "keep_round", "floor", "round", "ceil"] = "keep_int"

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f"mask ratio must lie between 0 and 1 exclusive, got {self.ratio}")

    def hidden_count(self, units: int) -> int:
        """How many of `units` are hidden."""
        if self.count_rule == "keep_int":
            return units - math.floor(units * (1 - self.ratio))
        if self.count_rule == "keep_round":
            return units - round(units * (1 - self.ratio))
        share = units * self.ratio
        if self.count_rule == "round":
            return round(share)
        return math.floor(share) if self.count_rule == "floor" else math.ceil(share)

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask:
        if maskable is not None:
            return self._ragged(rng, count, maskable, grid)
        units = unit_grid(grid, self.unit) if self.unit > 1 else (count,)
        n = math.prod(units)
        hide = self.hidden_count(n)
        if not 0 < hide < n:
            raise UserError(
                f"mask ratio {self.ratio} hides {hide} of {n} units of {self.unit} tokens a side; "
                "at least one must be hidden and one visible: change the ratio, the unit, the "
                "patch or the input size"
            )
        return mask_from_order(
            rng.permutation("mask", n), n - hide, mode=self.mode, grid=grid, unit=self.unit
        )

    def _ragged(self, rng: Rng, count: int, maskable: Tensor, grid: tuple[int, ...]) -> Mask:
        if self.mode == "drop" or self.unit > 1:
            raise ValueError("tokens of unequal number need mode='replace' and unit=1")
        noise = rng.uniform("mask", count).masked_fill(~maskable, 2.0)
        place = noise.argsort(dim=1, stable=True).argsort(dim=1)
        share = (maskable.sum(1) * self.ratio).floor().clamp_(min=1)
        return Mask((place < share[:, None]) & maskable, self.mode, grid)
