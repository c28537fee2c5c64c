"""What readers give views: blocks of voxels that know where in their scan they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """One block: int16 `data` `[C, X, Y, Z]`, its `corner` and its scan's `shape`, in voxels."""

    data: Tensor
    corner: tuple[int, int, int]
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Blocks:
    """A batch: `data` int16 `[B, C, X, Y, Z]`, `corner` and `shape` int64 `[B, 3]`."""

    data: Tensor
    corner: Tensor
    shape: Tensor

    def __len__(self) -> int:
        return self.data.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> Blocks:
        """Some of the batch."""
        return Blocks(self.data[rows], self.corner[rows], self.shape[rows])

    def to(self, device: torch.device | str) -> Blocks:
        """The same blocks on another device."""
        parts = (self.data, self.corner, self.shape)
        return Blocks(*(part.to(device, non_blocking=True) for part in parts))

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> Blocks:
        """Blocks of one size as a batch."""
        return cls(
            torch.stack([block.data for block in blocks]),
            torch.tensor([block.corner for block in blocks]),
            torch.tensor([block.shape for block in blocks]),
        )
