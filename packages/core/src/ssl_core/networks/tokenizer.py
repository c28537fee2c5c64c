"""A small trainable tokenizer: patches to discrete codes and back.

Finite scalar quantisation (Mentzer et al. 2024): a few bounded numbers a token, each rounded to
one of `levels`, their combination being the code. Unlike a codebook it has no entries to keep
alive, no commitment term and nothing that a replica would have to share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FiniteScalarQuantiser(nn.Module):
    """`[..., len(levels)]` real numbers to rounded ones in [-1, 1], and int64 codes `[...]`.

    The gradient passes the rounding as if it were the identity. There are prod(levels) codes.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        if not levels or any(level < 2 for level in levels):
            raise ValueError(f"levels must be integers of at least 2, got {list(levels)}")
        self.codes = math.prod(levels)
        sizes = torch.tensor(list(levels))
        self.register_buffer("levels", sizes, persistent=False)
        basis = torch.cat([sizes.new_ones(1), sizes[:-1]]).cumprod(0)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        size = self.levels.to(z.dtype)
        half = (size - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0).to(z.dtype)
        bounded = (z + (offset / half).atanh()).tanh() * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        width = torch.div(self.levels, 2, rounding_mode="floor")
        digits = rounded.detach().round().to(torch.int64) + width  # 0 ... level - 1
        return rounded / width.to(z.dtype), (digits * self.basis).sum(-1)


class PatchTokenizer(nn.Module):
    """An autoencoder of single tokens `[..., token_dim]` through a quantised bottleneck."""

    def __init__(self, token_dim: int, *, levels: Sequence[int], hidden: int = 256) -> None:
        super().__init__()
        self.quantise = FiniteScalarQuantiser(levels)
        self.encoder = nn.Sequential(
            nn.Linear(token_dim, hidden), nn.GELU(), nn.Linear(hidden, len(levels))
        )
        self.decoder = nn.Sequential(
            nn.Linear(len(levels), hidden), nn.GELU(), nn.Linear(hidden, token_dim)
        )

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return self.quantise.codes

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """What is rebuilt from the codes, like `values`, and the codes, int64 `[...]`."""
        # At least float32: under autocast the rounding would decide on bfloat16 numbers.
        with torch.autocast(values.device.type, enabled=False):
            own = next(self.encoder.parameters()).dtype
            x = values.to(torch.promote_types(values.dtype, own))
            quantised, ids = self.quantise(self.encoder(x))
            return self.decoder(quantised), ids
