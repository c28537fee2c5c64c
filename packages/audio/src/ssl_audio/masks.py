"""SSAST's mask: squares of patches, one beside the other, until enough is hidden."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.networks.grid_masks import lowest
from ssl_core.networks.masks import Mask, Mode, mask_from_hidden
from ssl_core.rng import Rng


@dataclass(frozen=True)
class ClusterMasker:
    """Hides exactly round(N ratio) patches in squares whose side is drawn from `sides`.

    Squares (one side length a recording) are laid down at random places until enough patches are
    covered; of the last one, patches chosen at random make up the count. The released code never
    hides the first patch, lets squares run over the right edge into the next frequency row and
    trims the highest indices; here all places are alike.
    """

    ratio: float = 400 / 512
    sides: tuple[int, ...] = (3, 4, 5)
    mode: Mode = "replace"

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1 or not self.sides or min(self.sides) < 1:
            raise ValueError(f"need 0 < ratio < 1 and sides of at least 1, got {self}")

    def __call__(
        self,
        rng: Rng,
        count: int,
        *,
        grid: tuple[int, ...] = (),
        maskable: Tensor | None = None,
    ) -> Mask:
        if maskable is not None or len(grid) != 2:
            raise UserError("a cluster mask needs patches on a grid of two axes; use mask 'random'")
        hide = round(count * self.ratio)
        if not 0 < hide < count:
            raise UserError(f"mask ratio {self.ratio} hides {hide} of {count} patches")
        device = rng.device
        choices = torch.tensor(self.sides, device=device)
        side = choices[rng.integers("cluster side", high=len(self.sides))][:, None, None]  # [B,1,1]
        # Squares may stick out at every edge, so that all places are hidden equally often.
        inside = None
        for axis, size in enumerate(grid):
            start = rng.integers(f"cluster {axis}", count, high=size - 1 + side[:, 0]) - side[:, 0]
            cells = torch.arange(size, device=device) - start.unsqueeze(-1) - 1  # [B, M, size]
            along = (cells >= 0) & (cells < side)
            inside = along if inside is None else inside.unsqueeze(-1) & along.unsqueeze(-2)
        assert inside is not None
        covered = inside.flatten(2)  # [B, M, N]
        first = covered.to(torch.uint8).argmax(1)  # the first square on each patch
        first = torch.where(covered.any(1), first, count)
        hidden = lowest(first + rng.uniform("mask", count), hide)
        return mask_from_hidden(hidden, count - hide, mode=self.mode, grid=grid)
