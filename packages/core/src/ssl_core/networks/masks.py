"""Masks: made once, used by encoder, decoder, target and loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ssl_core.rng import Rng

Mode = Literal["drop", "replace", "mix"]


@dataclass
class Mask:
    """Which tokens are hidden, and how.

    `hidden` (bool `[B, N]`) is what the loss counts. In drop mode the encoder sees only
    `ids_keep` (`[B, K]`, in the order kept) and `ids_restore` (`[B, N]`) puts [kept, hidden] back
    in place. In replace mode the encoder sees a mask vector where `replaced` is True (None: at
    every hidden token; BERT keeps or swaps some of them).
    """

    hidden: Tensor
    mode: Mode
    grid: tuple[int, ...] = ()
    ids_keep: Tensor | None = None
    ids_restore: Tensor | None = None
    replaced: Tensor | None = None

    @property
    def at_mask_token(self) -> Tensor:
        """Where a mask vector stands in for the content, bool `[B, N]`."""
        return self.hidden if self.replaced is None else self.replaced

    def keep(self, x: Tensor) -> Tensor:
        """The kept rows of `[B, N, ...]`, in drop mode `[B, K, ...]`."""
        assert self.ids_keep is not None, "only masks in drop mode keep a subset"
        index = self.ids_keep.reshape(*self.ids_keep.shape, *[1] * (x.dim() - 2))
        return x.gather(1, index.expand(-1, -1, *x.shape[2:]))

    def restore(self, kept: Tensor, fill: Tensor) -> Tensor:
        """Kept tokens `[B, K, D]` in their places among `fill` (`[D]`): `[B, N, D]`."""
        assert self.ids_restore is not None, "only masks in drop mode have an order to restore"
        missing = self.ids_restore.shape[1] - kept.shape[1]
        fill = fill.to(kept.dtype).expand(kept.shape[0], missing, kept.shape[-1])
        index = self.ids_restore.unsqueeze(-1).expand(-1, -1, kept.shape[-1])
        return torch.cat([kept, fill], dim=1).gather(1, index)


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


_ROUND: dict[str, Callable[[float], int]] = {
    "keep_int": lambda x: math.floor(x),
    "round": lambda x: round(x),
    "ceil": lambda x: math.ceil(x),
}


@dataclass(frozen=True)
class RandomMasker:
    """Hides a fixed share of tokens (or of square units of them), chosen uniformly per sample.

    `count_rule` fixes what papers disagree on: "keep_int" keeps int(N(1 - ratio)) tokens (MAE),
    "round" and "ceil" (SimMIM) apply to the number hidden. `unit` groups grid cells into
    unit x unit squares that are hidden together. With `maskable` (bool `[B, N]`) the share is
    of each sample's maskable tokens, rounded down but at least one; such masks need "replace".
    """

    ratio: float
    mode: Mode = "drop"
    unit: int = 1
    count_rule: Literal["keep_int", "round", "ceil"] = "keep_int"

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f"mask ratio must lie between 0 and 1 exclusive, got {self.ratio}")

    def hidden_count(self, units: int) -> int:
        """How many of `units` are hidden."""
        if self.count_rule == "keep_int":
            return units - math.floor(units * (1 - self.ratio))
        return _ROUND[self.count_rule](units * self.ratio)

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
        if self.unit > 1 and any(side % self.unit for side in grid):
            raise ValueError(f"mask unit {self.unit} does not divide the token grid {grid}")
        units = tuple(side // self.unit for side in grid)
        n = math.prod(units) if self.unit > 1 else count
        hide = self.hidden_count(n)
        order = rng.permutation("mask", n)  # first come the kept units
        hidden = torch.ones(len(rng), n, dtype=torch.bool, device=rng.device)
        hidden.scatter_(1, order[:, : n - hide], False)
        if self.unit > 1:
            hidden = hidden.reshape(len(rng), *units)
            for axis in range(len(units)):
                hidden = hidden.repeat_interleave(self.unit, dim=axis + 1)
            hidden = hidden.flatten(1)
            order = hidden.to(torch.int8).argsort(dim=1, stable=True)
            hide = hide * self.unit ** len(units)
        if self.mode != "drop":
            return Mask(hidden, self.mode, grid)
        return Mask(hidden, "drop", grid, order[:, : count - hide], order.argsort(dim=1))

    def _ragged(self, rng: Rng, count: int, maskable: Tensor, grid: tuple[int, ...]) -> Mask:
        if self.mode == "drop":
            raise ValueError("tokens of unequal number cannot be dropped; use mode='replace'")
        noise = rng.uniform("mask", count).masked_fill(~maskable, 2.0)
        place = noise.argsort(dim=1, stable=True).argsort(dim=1)
        share = (maskable.sum(1) * self.ratio).floor().clamp_(min=1)
        return Mask((place < share[:, None]) & maskable, self.mode, grid)
