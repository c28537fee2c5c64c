"""A vision transformer over grids of 1, 2 or 3 axes, as a token encoder with three masked modes.

Dosovitskiy et al. 2021, with the masked forwards of MAE (hidden tokens dropped before the
embedding), SimMIM or BEiT (their embeddings replaced by one learned vector) and MixMIM (tokens of
two inputs, which do not attend to each other). Parameter names are those of timm's
VisionTransformer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens, token_width
from ssl_core.networks.masks import Mask
from ssl_core.networks.patch_embed import PatchEmbed, patch_grid, patchify, unpatchify
from ssl_core.networks.positions import (
    RelativePositionBias,
    move_positions,
    resample_positions,
    sincos_grid,
)
from ssl_core.networks.transformer import blocks, initialise

Pool = Literal["cls", "mean", "rows", "blocks"]
Positions = Literal["learned", "sincos", "relative", "none"]


PUBLISHED_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
    "base": {"dim": 768, "depth": 12, "heads": 12},
    "large": {"dim": 1024, "depth": 24, "heads": 16},
    "huge": {"dim": 1280, "depth": 32, "heads": 16},
}
"""The published sizes (Dosovitskiy et al. 2021; Touvron et al. 2021), of every kind of patches."""


def sized(
    module: str,
    name: str,
    sizes: Mapping[str, Mapping[str, Any]],
    factory: Callable[..., nn.Module],
) -> Any:
    """What a module's `__getattr__` returns for `vit_<size>_patch<n>`: `factory` of that size.

    So that registries can point at every size and patch. Other names raise `AttributeError`.
    """
    _, _, rest = name.partition("vit_")
    size, _, patch = rest.partition("_patch")
    if name.startswith("vit_") and size in sizes and patch.isdecimal():
        return partial(factory, patch=int(patch), **sizes[size])
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


class MaskTokens(nn.Module):
    """Replace mode for token encoders: one vector for hidden tokens.

    `mask_token` exists only after `enable_mask_token`, which methods in replace mode call: a
    network that never masks has no parameter without gradient. Loading weights that hold a mask
    token enables it.
    """

    embed_dim: int
    mask_token: nn.Parameter | None

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("mask_token", None)

    def enable_mask_token(self) -> None:
        """Adds the vector that stands in for hidden tokens in replace mode."""
        if self.mask_token is None:
            like = next(self.parameters())
            self.mask_token = nn.Parameter(_vector(1, 1, token_width(self)).data.to(like))

    def replaced(self, x: Tensor, mask: Mask) -> Tensor:
        """Embedded tokens `[B, N, D]` with the mask token where `mask` says."""
        if self.mask_token is None:
            raise RuntimeError("replace mode needs a mask token: call enable_mask_token() first")
        return torch.where(mask.at_mask_token.unsqueeze(-1), self.mask_token.to(x.dtype), x)

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        if f"{prefix}mask_token" in state:
            self.enable_mask_token()
        super()._load_from_state_dict(state, prefix, *rest)


class PatchTransformer(MaskTokens):
    """Patches, positions, blocks, norm. `forward(x [B, C, *sides]) -> Features`.

    `sides` is the input size whose grid positions are made for; other multiples of `patch` work
    too (learned tables are interpolated, sin-cos ones recomputed over the same extent, relative
    biases cover smaller grids). `pool` says what `pooled` is: the class token, the mean of the
    patch tokens, or ("rows") their mean along the last axis, the rows side by side, `[B, rows D]`:
    for spectrograms, where a mean over frequencies says no longer what sounded (Niizumi et al.
    2022). "blocks" are the rows after every block, normalised like the last, side by side, `[B,
    depth rows D]`: what ATST is read by, and near s3prl's weighted sum of all layers. Of dropped
    tokens, rows know nothing; a row without any is 0.
    """

    def __init__(
        self,
        *,
        channels: int,
        sides: tuple[int, ...],
        patch: tuple[int, ...],
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        class_token: bool = True,
        pool: Pool = "cls",
        positions: Positions = "learned",
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        _choice("pool", pool, ("cls", "mean", "rows", "blocks"))
        _choice("positions", positions, ("learned", "sincos", "relative", "none"))
        if pool == "cls" and not class_token:
            raise ValueError("pool='cls' needs class_token=True; use pool='mean' without one")
        self.pool = pool
        self.grid = patch_grid(sides, patch)
        self.token_width = dim
        rows = math.prod(self.grid[:-1])
        self.embed_dim = dim * {"rows": rows, "blocks": depth * rows}.get(pool, 1)
        self.patch_embed = PatchEmbed(channels, patch, dim)
        self.cls_token: nn.Parameter | None = _vector(1, 1, dim) if class_token else None
        self._make_positions(positions, dim, heads)
        self.blocks = blocks(
            depth,
            dim,
            heads,
            mlp_ratio=mlp_ratio,
            dropout=dropout,
            drop_path=drop_path,
            layer_scale=layer_scale,
        )
        self.blocks.apply(initialise)
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def _make_positions(self, positions: Positions, dim: int, heads: int) -> None:
        self.positions = positions
        rows = self.prefix_count + math.prod(self.grid)
        self.pos_embed: Tensor | None
        self.rel_pos_bias = (
            RelativePositionBias(self.grid, heads) if positions == "relative" else None
        )
        if positions == "learned":
            self.pos_embed = _vector(1, rows, dim)
        elif positions == "sincos":
            table = torch.zeros(1, rows, dim)  # the class token's row stays zero, as in MAE
            table[0, self.prefix_count :] = sincos_grid(self.grid, dim)
            self.register_buffer("pos_embed", table)
        else:
            self.pos_embed = None

    @property
    def prefix_count(self) -> int:
        """Tokens before the patch tokens."""
        return 0 if self.cls_token is None else 1

    @property
    def token_dim(self) -> int:
        """Numbers in a patch."""
        return self.patch_embed.token_dim

    def adapt_weights(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a model for another input size, with its positions moved to this grid."""
        return move_positions(given, self.pos_embed, self.prefix_count, self.grid)

    def tokenize(self, data: Tensor) -> Tokens:
        """Cuts `[B, C, *sides]` into patches `[B, N, P]`."""
        patch = self.patch_embed.patch
        grid = patch_grid(tuple(data.shape[2:]), patch)
        return Tokens(patchify(data, patch), grid)

    def assemble(self, values: Tensor, grid: tuple[int, ...]) -> Tensor:
        """The inverse of `tokenize`: patches `[B, N, P]` on `grid` to `[B, C, *sides]`."""
        return unpatchify(values, self.patch_embed.patch, grid)

    def encode(self, tokens: Tokens, mask: Mask | None = None) -> Features:
        """Embeds, places and encodes tokens; the order of `tokens` follows `Mask.ids_keep`."""
        x = self._embedded(tokens, mask)
        count = self.prefix_count
        if self.cls_token is not None:
            start: Tensor = self.cls_token
            if self.pos_embed is not None:
                start = start + self.pos_embed[:, :count]
            x = torch.cat([start.expand(x.shape[0], -1, -1), x], dim=1)
        bias = self._bias(tokens.grid, mask)
        levels = []
        for block in self.blocks:
            x = block(x, bias)
            if self.pool == "blocks":
                levels.append(x)
        x = self.norm(x)
        prefix, patches = x[:, :count], x[:, count:]
        pooled = self._pooled(prefix, patches, levels, tokens.grid, mask)
        grid = () if mask is not None and mask.mode == "drop" else tokens.grid
        return Features(pooled, patches, grid, prefix=prefix if count else None)

    def forward(self, data: Tensor) -> Features:
        return self.encode(self.tokenize(data))

    def _pooled(
        self,
        prefix: Tensor,
        patches: Tensor,
        levels: list[Tensor],
        grid: tuple[int, ...],
        mask: Mask | None,
    ) -> Tensor:
        """What `pool` names, of the last block's tokens or (`levels`) of every block's."""
        if self.pool == "cls":
            return prefix[:, 0]
        if self.pool == "mean":
            return patches.mean(1)
        if self.pool == "rows":
            return _rows(patches, grid, mask)
        normal = [self.norm(level)[:, self.prefix_count :] for level in levels[:-1]]
        return torch.cat([_rows(level, grid, mask) for level in [*normal, patches]], dim=1)

    def _embedded(self, tokens: Tokens, mask: Mask | None) -> Tensor:
        """Patch tokens with their positions: `[B, N, D]`, in drop mode `[B, K, D]`."""
        places = self._places(tokens.grid)  # [1, N, D] or None
        if mask is None:
            x: Tensor = self.patch_embed(tokens.values)
        elif mask.mode == "drop":
            x = self.patch_embed(mask.keep(tokens.values))
            if places is not None:
                places = mask.keep(places)
        elif mask.mode == "replace":
            x = self.replaced(self.patch_embed(tokens.values), mask)
        else:
            x = self.patch_embed(tokens.values)
        return x if places is None else x + places

    def _places(self, grid: tuple[int, ...]) -> Tensor | None:
        if self.pos_embed is None:
            return None
        table = self.pos_embed[:, self.prefix_count :]
        if grid == self.grid:
            return table
        if self.positions == "learned":
            return resample_positions(table[0], self.grid, grid).unsqueeze(0)
        return sincos_grid(grid, self.token_width, like=self.grid, device=table.device).to(table)[
            None
        ]

    def _bias(self, grid: tuple[int, ...], mask: Mask | None) -> Tensor | None:
        if mask is not None and mask.mode == "mix":
            if self.cls_token is not None:
                raise ValueError("mixed inputs need an encoder with class_token=False")
            relative = None if self.rel_pos_bias is None else self.rel_pos_bias(grid)
            return same_source(mask.hidden, relative)
        if self.rel_pos_bias is None:
            return None
        bias: Tensor = self.rel_pos_bias(grid, self.prefix_count)  # [heads, P + N, P + N]
        if mask is None or mask.ids_keep is None:
            return bias.unsqueeze(0)
        first = torch.arange(self.prefix_count, device=bias.device)
        first = first.expand(mask.ids_keep.shape[0], -1)
        rows = torch.cat([first, mask.ids_keep + self.prefix_count], dim=1)  # [B, P + K]
        return bias[:, rows[:, :, None], rows[:, None, :]].transpose(0, 1)


def same_source(hidden: Tensor, bias: Tensor | None = None) -> Tensor:
    """The attention bias that keeps two mixed inputs apart, broadcast to `[B, heads, N, N]`.

    Tokens attend to those on their own side of `hidden` (bool `[B, N]`); `bias` is `[heads, N, N]`.
    """
    same = (hidden[:, :, None] == hidden[:, None, :]).unsqueeze(1)
    return same if bias is None else torch.where(same, bias, float("-inf"))


def _rows(x: Tensor, grid: tuple[int, ...], mask: Mask | None) -> Tensor:
    """The mean of patch tokens `[B, N, D]` along the grid's last axis: `[B, rows D]`."""
    if mask is None or mask.ids_keep is None:
        whole: Tensor = x.unflatten(1, (-1, grid[-1])).mean(2).flatten(1)
        return whole
    row = F.one_hot(mask.ids_keep // grid[-1], math.prod(grid[:-1])).to(x.dtype)  # [B, K, R]
    count = row.sum(1).clamp(min=1).unsqueeze(-1)  # [B, R, 1]
    return (row.transpose(1, 2) @ x / count).flatten(1)


def _vector(*shape: int) -> nn.Parameter:
    """A learned vector, normal with deviation 0.02."""
    return nn.Parameter(torch.empty(shape).normal_(std=0.02))


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
