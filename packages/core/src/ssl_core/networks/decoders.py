"""Decoders of masked methods: `decoder(features, mask, tokens) -> [B, N, out_dim]`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.networks.masks import Mask
from ssl_core.networks.patch_embed import unpatchify
from ssl_core.networks.positions import sincos, sincos_grid
from ssl_core.networks.transformer import attention_bias, blocks, initialise


def _encoded(features: Features) -> Tensor:
    if features.tokens is None:
        raise ValueError("a masked method needs an encoder that returns tokens, this one has none")
    return features.tokens


class TransformerDecoder(nn.Module):
    """MAE's decoder: linear, mask vectors, positions, blocks, norm, linear.

    With `fill` a learned vector stands at every hidden place: missing tokens in drop mode,
    overwritten ones in replace mode; without it the encoder's own output is decoded (replace mode
    only). Positions are fixed sin-cos of the token grid, or of `Tokens.coords` where there is no
    grid. Class tokens take part in the attention and are left out of the result.

    With `hidden_only` (drop mode) the result is `[B, H, out_dim]` at `mask.ids_hidden`: what a loss
    over hidden tokens reads, in the same numbers. The last block's questions, its perceptron, the
    norm and the last layer are then for these alone.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        dim: int = 512,
        depth: int = 8,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        fill: bool = True,
        hidden_only: bool = False,
    ) -> None:
        super().__init__()
        if hidden_only and depth < 1:
            raise ValueError(f"a decoder of hidden tokens needs a depth of at least 1, got {depth}")
        self.dim = dim
        self.hidden_only = hidden_only
        self.embed = nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.empty(dim).normal_(std=0.02)) if fill else None
        self.blocks = blocks(depth, dim, heads, mlp_ratio=mlp_ratio, stream="decoder")
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.out = nn.Linear(dim, out_dim)
        self.apply(initialise)

    def forward(self, features: Features, mask: Mask, tokens: Tokens) -> Tensor:
        x = self._filled(self.embed(_encoded(features)), mask)  # [B, N, dim]
        places = self._places(tokens, mask)
        if places is not None:
            # At least float32, so that the residual stream keeps its precision under autocast.
            x = x + places.to(torch.promote_types(x.dtype, torch.float32))
        valid, count = tokens.valid, 0
        if features.prefix is not None:
            count = features.prefix.shape[1]
            x = torch.cat([self.embed(features.prefix), x], dim=1)
            if valid is not None:
                valid = torch.cat([valid.new_ones(valid.shape[0], count), valid], dim=1)
        bias = attention_bias(valid)
        if self.hidden_only:
            *earlier, last = self.blocks
            for block in earlier:
                x = block(x, bias)
            x = last(x, bias, mask.listed_hidden() + count)  # [B, H, dim]
        else:
            for block in self.blocks:
                x = block(x, bias)
            x = x[:, count:]
        return self.out(self.norm(x))  # type: ignore[no-any-return]

    def _filled(self, x: Tensor, mask: Mask) -> Tensor:
        if self.mask_token is None:
            if mask.mode == "drop":
                raise ValueError("tokens were dropped: the decoder needs fill=True")
            return x
        if mask.mode == "drop":
            return mask.restore(x, self.mask_token)
        return torch.where(mask.hidden.unsqueeze(-1), self.mask_token.to(x.dtype), x)

    def _places(self, tokens: Tokens, mask: Mask) -> Tensor | None:
        device = tokens.values.device
        if tokens.grid:
            return sincos_grid(tokens.grid, self.dim, device=device)  # [N, dim]
        if tokens.coords is not None:
            return sincos(tokens.coords, self.dim)  # [B, N, dim]
        if self.mask_token is not None:
            raise ValueError("tokens without grid or coords: hidden ones could not be told apart")
        return None


_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class ConvDecoder(nn.Module):
    """data2vec 2.0's decoder: grouped convolutions on the token grid of 1, 2 or 3 `axes`.

    A learned vector stands at hidden places. Each layer is a convolution, a norm over channels
    without parameters, and GELU; from the second on its input is added. A linear layer ends it.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        dim: int = 768,
        depth: int = 6,
        kernel: int = 3,
        groups: int = 16,
        axes: int = 2,
    ) -> None:
        super().__init__()
        if depth < 1 or dim % groups or in_dim % groups:
            raise ValueError(
                f"decoder depth must be at least 1 and {groups} groups must divide its widths, "
                f"got depth {depth}, widths {in_dim} and {dim}"
            )
        self.mask_token = nn.Parameter(torch.empty(in_dim).normal_(std=0.02))
        self.layers = nn.ModuleList(
            _CONV[axes](dim if i else in_dim, dim, kernel, padding=kernel // 2, groups=groups)
            for i in range(depth)
        )
        self.out = nn.Linear(dim, out_dim)

    def forward(self, features: Features, mask: Mask, tokens: Tokens) -> Tensor:
        x = mask.restore(_encoded(features), self.mask_token)  # [B, N, D]
        x = x.transpose(1, 2).unflatten(2, tokens.grid)  # [B, D, *grid]
        for number, layer in enumerate(self.layers):
            new = layer(x).movedim(1, -1)
            new = F.gelu(F.layer_norm(new, new.shape[-1:])).movedim(-1, 1)
            x = x + new if number else new
        return self.out(x.flatten(2).transpose(1, 2))  # type: ignore[no-any-return]


class HiddenLogits(nn.Module):
    """One linear layer on hidden tokens alone, `[M, out_dim]`: for vocabularies, whose logits at
    every token would cost most of the memory."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.out = nn.Linear(in_dim, out_dim)
        initialise(self.out)

    def forward(self, features: Features, mask: Mask, tokens: Tokens) -> Tensor:
        return self.out(_encoded(features)[mask.hidden])  # type: ignore[no-any-return]


class PixelShuffleHead(nn.Module):
    """SimMIM's decoder: one linear layer from each feature cell to the content it covers.

    With `reduction` r a cell of a hierarchical encoder covers r tokens along each of `axes` axes;
    1 for encoders that keep the token grid.
    """

    def __init__(self, in_dim: int, out_dim: int, *, reduction: int = 1, axes: int = 2) -> None:
        super().__init__()
        self.reduction = reduction
        self.axes = axes
        self.out = nn.Linear(in_dim, out_dim * reduction**axes)

    def forward(self, features: Features, mask: Mask, tokens: Tokens) -> Tensor:
        x: Tensor = self.out(_encoded(features))  # [B, M, r^axes * T]
        if self.reduction == 1:
            return x
        maps = unpatchify(x, (self.reduction,) * self.axes, features.grid)  # [B, T, *token grid]
        return maps.flatten(2).transpose(1, 2)
