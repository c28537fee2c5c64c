"""The pre-norm transformer block, with timm's parameter names so that weights interchange.

Sources: Vaswani et al. 2017, Dosovitskiy et al. 2021; LayerScale of Touvron et al. 2021;
stochastic depth of Huang et al. 2016, drawn from the sample's key.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.networks.attention import attention
from ssl_core.networks.dropout import DropPath, KeyedDropout
from ssl_core.networks.masks import rows_at


class Attention(nn.Module):
    """Multi-head self-attention: `[B, N, D] -> [B, N, D]`.

    `bias` is added to the logits before the softmax and broadcasts to `[B, heads, N, N]`; a bool
    one says who may be attended to. `at` (int64 `[B, M]`) names the places that ask, all by
    default: the result is `[B, M, D]`, and M stands for the first N of the bias.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        q, k, v = self._heads(self.qkv(x)) if at is None else self._asked(x, at)
        out = attention(q, k, v, bias)
        return self.proj(out.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _asked(self, x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        """The queries of the places `at` alone, the keys and values of all."""
        parts = [x.shape[-1], 2 * x.shape[-1]]
        weights = self.qkv.weight.split(parts)
        biases = (None, None) if self.qkv.bias is None else self.qkv.bias.split(parts)
        queries = F.linear(rows_at(x, at), weights[0], biases[0])
        return *self._heads(queries), *self._heads(F.linear(x, weights[1], biases[1]))

    def _heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """`[B, N, parts * D]` to as many `[B, heads, N, D / heads]`."""
        width = self.qkv.in_features // self.heads
        return x.unflatten(-1, (-1, self.heads, width)).permute(2, 0, 3, 1, 4).unbind()  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with GELU between; `[..., D] -> [..., D]`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    """A learned factor per channel, small at the start, on each residual branch."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    `stream` names the block among its network's: dropout and drop-path draw from it. With `at`
    (int64 `[B, M]`) only these places are followed to the end: `[B, N, D] -> [B, M, D]`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        stream: str = "block",
    ) -> None:
        super().__init__()
        scale = nn.Identity if layer_scale is None else lambda: LayerScale(dim, layer_scale)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias)
        self.drop1 = KeyedDropout(dropout, stream=f"{stream}.attn")
        self.ls1 = scale()
        self.drop_path1 = DropPath(drop_path, stream=f"{stream}.attn path")
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop2 = KeyedDropout(dropout, stream=f"{stream}.mlp")
        self.ls2 = scale()
        self.drop_path2 = DropPath(drop_path, stream=f"{stream}.mlp path")

    def forward(self, x: Tensor, bias: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        attended = self.drop_path1(self.ls1(self.drop1(self.attn(self.norm1(x), bias, at))))
        x = (x if at is None else rows_at(x, at)) + attended
        return x + self.drop_path2(self.ls2(self.drop2(self.mlp(self.norm2(x)))))  # type: ignore[no-any-return]


def blocks(
    depth: int,
    dim: int,
    heads: int,
    *,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    layer_scale: float | None = None,
    stream: str = "blocks",
) -> nn.ModuleList:
    """`depth` blocks; the drop-path probability grows linearly from 0 to `drop_path`."""
    return nn.ModuleList(
        Block(
            dim,
            heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            dropout=dropout,
            drop_path=drop_path * i / max(1, depth - 1),
            layer_scale=layer_scale,
            stream=f"{stream}.{i}",
        )
        for i in range(depth)
    )


def initialise(module: nn.Module) -> None:
    """MAE's start: Xavier-uniform linear weights, zero biases (use with `module.apply`)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def attention_bias(valid: Tensor | None) -> Tensor | None:
    """The bool bias that hides padding: `valid` (bool `[B, N]`) to `[B, 1, 1, N]`."""
    return None if valid is None else valid[:, None, None, :]
