"""Residual dilated convolutions over token ids (Yu & Koltun 2016; TAPE's ResNet, Rao et al. 2019).

A block is x + dropout(conv(GELU(norm(x)))); dilations double from block to block and start anew
after `cycle` of them. Norms are per token and padding is zeroed before every convolution, so that
a document's states do not depend on how far its batch is padded.
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from ssl_core.networks.dropout import KeyedDropout
from ssl_text.encoders.base import EmbeddingEncoder, Pieces


class ConvEncoder(EmbeddingEncoder):
    """`depth` blocks of width `dim` with kernels of `kernel` tokens (an odd number)."""

    def __init__(
        self,
        vocab_size: int,
        *,
        dim: int,
        depth: int,
        kernel: int,
        cycle: int,
        dropout: float,
        **pieces: Unpack[Pieces],
    ) -> None:
        super().__init__(vocab_size, dim=dim, **pieces)
        if kernel < 1 or kernel % 2 == 0 or depth < 1 or cycle < 1:
            raise ValueError(
                f"need an odd kernel, depth >= 1 and cycle >= 1, got {kernel}, {depth}, {cycle}"
            )
        self.blocks = nn.ModuleList(
            Block(dim, kernel, dilation=2 ** (number % cycle), dropout=dropout, stream=str(number))
            for number in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    def run(self, states: Tensor, valid: Tensor) -> Tensor:
        for block in self.blocks:
            states = block(states, valid)
        out: Tensor = self.norm(states)
        return out


class Block(nn.Module):
    """x + dropout(conv(GELU(norm(x)))) on `[B, L, D]`."""

    def __init__(
        self, dim: int, kernel: int, *, dilation: int, dropout: float, stream: str
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.activation = nn.GELU()
        self.conv = nn.Conv1d(dim, dim, kernel, padding="same", dilation=dilation)
        self.dropout = KeyedDropout(dropout, stream=f"block {stream}")

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        inner = self.activation(self.norm(x)) * valid[..., None]
        out: Tensor = x + self.dropout(self.conv(inner.transpose(1, 2)).transpose(1, 2))
        return out
