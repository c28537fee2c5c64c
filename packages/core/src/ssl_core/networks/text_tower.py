"""CLIP's text tower: a causal transformer whose last token stands for the text.

Radford et al., ICML 2021: pre-norm blocks, learned positions, the final norm at the end token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.networks.transformer import blocks


class TextTower(nn.Module):
    """Token ids `[B, length]`, padded on the right with `pad_id`, to `Features`.

    `pooled` is the last token that is no padding, which alone has seen all others. Padding comes
    after it, so that what stands there changes nothing.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        length: int,
        pad_id: int,
        dim: int = 512,
        depth: int = 12,
        heads: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed_dim = dim
        self.pad_id = pad_id
        self.token_embed = nn.Embedding(vocab_size, dim)
        self.pos_embed = nn.Parameter(torch.empty(length, dim))
        self.blocks = blocks(depth, dim, heads, dropout=dropout, stream="text")
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.register_buffer(
            "causal", torch.ones(length, length, dtype=torch.bool).tril(), persistent=False
        )
        self._start(dim, depth)

    def _start(self, dim: int, depth: int) -> None:
        """The paper's scales: residual branches shrink with depth."""
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        branch = dim**-0.5 * (2 * depth) ** -0.5
        for name, weight in self.blocks.named_parameters():
            if name.endswith("qkv.weight"):
                nn.init.normal_(weight, std=dim**-0.5)
            elif name.endswith(("proj.weight", "fc2.weight")):
                nn.init.normal_(weight, std=branch)
            elif name.endswith("fc1.weight"):
                nn.init.normal_(weight, std=(2 * dim) ** -0.5)

    def forward(self, ids: Tensor) -> Features:
        count = ids.shape[1]
        valid = ids != self.pad_id  # [B, N]
        x = self.token_embed(ids) + self.pos_embed[:count]
        causal: Tensor = self.causal[:count, :count]  # type: ignore[index]
        for block in self.blocks:
            x = block(x, causal)
        x = self.norm(x)
        place = torch.arange(count, device=ids.device)
        last = torch.where(valid, place, 0).amax(1)
        pooled = x[torch.arange(len(ids), device=ids.device), last]
        return Features(pooled, x, (count,), valid)


def text_tower(
    spec: Mapping[str, Any],
    *,
    dim: int = 512,
    depth: int = 12,
    heads: int = 8,
    dropout: float = 0.0,
) -> TextTower:
    """A tower for the captions of data with these facts; `UserError` for data without captions."""
    facts = spec.get("captions")
    if facts is None:
        raise UserError(
            "tower text: the data has no captions; name their column, for instance "
            "--set data.options.captions=caption"
        )
    return TextTower(**facts, dim=dim, depth=depth, heads=heads, dropout=dropout)
