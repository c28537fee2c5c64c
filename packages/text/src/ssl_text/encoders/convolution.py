"""Residual dilated convolutions over token ids (Yu & Koltun 2016; TAPE's ResNet, Rao et al. 2019).

A block is x + dropout(conv(GELU(norm(x)))); dilations double from block to block and start anew
after `cycle` of them. Norms are per token and padding is zeroed before every convolution, so that
a document's states do not depend on how far its batch is padded.
"""

from __future__ import annotations

from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.networks.dropout import KeyedDropout
from ssl_text.encoders.base import IdEncoder, Pooling


class ConvEncoder(IdEncoder):
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
        mask_id: int,
        special_ids: list[int],
        pad_id: int,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__(mask_id=mask_id, special_ids=special_ids, pad_id=pad_id, pooling=pooling)
        if kernel < 1 or kernel % 2 == 0 or depth < 1 or cycle < 1:
            raise ValueError(
                f"need an odd kernel, depth >= 1 and cycle >= 1, got {kernel}, {depth}, {cycle}"
            )
        self.embed_dim = dim
        self.embedding = nn.Embedding(vocab_size, dim)
        self.blocks = nn.ModuleList(
            Block(dim, kernel, dilation=2 ** (number % cycle), dropout=dropout, stream=str(number))
            for number in range(depth)
        )
        self.norm = nn.LayerNorm(dim)

    @property
    def vocabulary(self) -> nn.Embedding:
        return self.embedding

    def states(self, tokens: Tokens, *, ids: Tensor | None, embedded: Tensor | None) -> Tensor:
        assert tokens.valid is not None, "made by tokenize"
        states = self.embed_ids(ids) if embedded is None else embedded  # type: ignore[arg-type]
        for block in self.blocks:
            states = block(states, tokens.valid)
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
