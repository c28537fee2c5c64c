"""Predicting the representation of places from the representation of others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core.networks.multi_block import Blocks
from ssl_core.networks.positions import sincos_grid
from ssl_core.networks.transformer import blocks, initialise


class LatentPredictor(nn.Module):
    """I-JEPA's narrow transformer: context tokens `[B, K, D]` to targets `[B, T, M, D]`.

    Context tokens are projected to `dim` and placed; a learned vector stands at each place to
    predict. The T groups of places are separate sequences that share the context. Positions are
    fixed sin-cos of the token grid.
    """

    def __init__(
        self,
        in_dim: int,
        *,
        dim: int = 384,
        depth: int = 6,
        heads: int = 12,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.embed = nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(dim).normal_(std=0.02))
        self.blocks = blocks(depth, dim, heads, mlp_ratio=mlp_ratio, stream="predictor")
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.out = nn.Linear(dim, in_dim)
        self.apply(initialise)

    def forward(self, context: Tensor, places: Blocks) -> Tensor:
        groups, count = places.targets.shape[1:]
        table = sincos_grid(places.grid, self.dim, device=context.device)  # [N, dim]
        table = table.to(torch.promote_types(self.mask_token.dtype, torch.float32))
        shown = self.embed(context) + table[places.context]  # [B, K, dim]
        asked = self.mask_token + table[places.targets]  # [B, T, M, dim]
        shown = shown.unsqueeze(1).expand(-1, groups, -1, -1)
        x = torch.cat([shown, asked.to(shown.dtype)], dim=2).flatten(0, 1)  # [B T, K + M, dim]
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.out(self.norm(x[:, -count:])).unflatten(0, (-1, groups))
        return out
