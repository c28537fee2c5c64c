"""timm's vision transformers as token encoders, so that masked methods take them by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_core.encoder import Features, Tokens
from ssl_core.networks.masks import Mask
from ssl_core.networks.patch_embed import patch_grid, patchify
from ssl_core.networks.positions import move_positions, resample_positions
from ssl_core.networks.vit import MaskTokens


def is_plain_vit(model: nn.Module) -> TypeGuard[VisionTransformer]:
    """Whether `TimmViT` covers the model: plain patches, absolute positions, no extra inputs."""
    return type(model) is VisionTransformer and type(model.patch_embed.proj) is nn.Conv2d


class TimmViT(MaskTokens):
    """A timm `VisionTransformer` (also DeiT 3, DINOv2, CLIP towers) that can drop or replace.

    Without a mask the result is that of the timm model; hidden patches are never embedded in drop
    mode. The timm model keeps its names inside `model`.
    """

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model
        self.embed_dim: int = model.num_features
        self.patch: tuple[int, int] = tuple(model.patch_embed.patch_size)
        self.timm_name = ""
        self.timm_settings: Mapping[str, Any] = {}
        self.token_dim = model.patch_embed.proj.in_channels * self.patch[0] * self.patch[1]

    def timm_twin(self) -> nn.Module:
        """The same timm network with random weights."""
        twin: nn.Module = timm.create_model(self.timm_name, **self.timm_settings)
        return twin

    def timm_state_dict(self) -> dict[str, Tensor]:
        """The weights under timm's names."""
        return self.model.state_dict()

    def adapt_weights(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a model for another input size, with its positions moved to this grid."""
        grid = tuple(self.model.patch_embed.grid_size)
        return move_positions(given, self.model.pos_embed, self._placed_prefix, grid)

    def tokenize(self, data: Tensor) -> Tokens:
        """Cuts `[B, C, H, W]` into patches `[B, N, P]`."""
        grid = patch_grid(tuple(data.shape[2:]), self.patch)
        return Tokens(patchify(data, self.patch), grid)

    def encode(self, tokens: Tokens, mask: Mask | None = None) -> Features:
        """Embeds, places and encodes; the order of `tokens` follows `Mask.ids_keep`."""
        model = self.model
        x = self._embedded(tokens, mask)  # [B, N, D], in drop mode [B, K, D]
        prefix = self._prefix()
        x = torch.cat([prefix.expand(x.shape[0], -1, -1), x], dim=1)
        x = model.norm_pre(model.pos_drop(x))
        for block in model.blocks:
            x = block(x)
        x = model.norm(x)
        count = prefix.shape[1]
        grid = () if mask is not None and mask.mode == "drop" else tokens.grid
        first = x[:, :count] if count else None
        return Features(model.forward_head(x), x[:, count:], grid, prefix=first)

    def forward(self, data: Tensor) -> Features:
        return self.encode(self.tokenize(data))

    def _embed(self, patches: Tensor) -> Tensor:
        proj = self.model.patch_embed.proj
        weight = proj.weight.movedim(1, -1).flatten(1)  # [D, C, p, p] -> [D, p p C]
        out: Tensor = self.model.patch_embed.norm(F.linear(patches, weight, proj.bias))
        return out

    def _embedded(self, tokens: Tokens, mask: Mask | None) -> Tensor:
        places = self._places(tokens.grid)  # [1, N, D] or None
        if mask is None:
            x = self._embed(tokens.values)
        elif mask.mode == "drop":
            x = self._embed(mask.keep(tokens.values))
            if places is not None:
                places = mask.keep(places)
        elif mask.mode == "replace":
            x = self.replaced(self._embed(tokens.values), mask)
        else:
            raise ValueError(f"a vision transformer masks by 'drop' or 'replace', not {mask.mode}")
        return x if places is None else x + places

    @property
    def _placed_prefix(self) -> int:
        """Rows of the position table that belong to class and register tokens."""
        return 0 if self.model.no_embed_class else self.model.num_prefix_tokens

    def _places(self, grid: tuple[int, ...]) -> Tensor | None:
        if self.model.pos_embed is None:
            return None
        table = self.model.pos_embed[0, self._placed_prefix :]
        native = tuple(self.model.patch_embed.grid_size)
        return resample_positions(table, native, grid).unsqueeze(0)

    def _prefix(self) -> Tensor:
        """Class and register tokens `[1, R, D]`, with positions where they have any."""
        model = self.model
        tokens: list[Tensor] = [t for t in (model.cls_token, model.reg_token) if t is not None]
        if not tokens:
            like: Tensor = model.patch_embed.proj.weight
            return like.new_zeros(1, 0, self.embed_dim)
        prefix = torch.cat(tokens, dim=1)
        if self._placed_prefix and model.pos_embed is not None:
            prefix = prefix + model.pos_embed[:, : self._placed_prefix]
        return prefix
