"""Vision transformers under the field's names: `vit_small_patch16` and its relatives.

Sizes: nano is ours, for small images on a CPU; tiny to huge are those of Dosovitskiy et al. 2021
and Touvron et al. 2021. Weights interchange with timm's VisionTransformer of the same size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.networks.vit import PUBLISHED_SIZES, PatchTransformer, Pool, Positions, sized
from ssl_vision.encoders.spec import channels_of, size_of


class VisionTransformer(PatchTransformer):
    """A `PatchTransformer` on images `[B, C, H, W]` with square patches."""

    def __init__(self, *, channels: int, size: tuple[int, int], patch: int, **options: Any) -> None:
        super().__init__(channels=channels, sides=size, patch=(patch, patch), **options)
        self.channels, self.sides, self.patch_side = channels, size, patch
        self._as_timm = options.get("positions", "learned") != "relative"

    def timm_state_dict(self) -> dict[str, Tensor]:
        """The weights under timm's names; the mask token, which timm's model lacks, is left out."""
        if not self._as_timm:
            raise UserError(
                "format: timm's model has no relative positions; use format 'safetensors'"
            )
        return {name: x for name, x in self.state_dict().items() if name != "mask_token"}

    def timm_arguments(self) -> dict[str, Any]:
        """What makes timm's `VisionTransformer` this network, without classifier."""
        first: Any = self.blocks[0]
        gamma = getattr(first.ls1, "gamma", None)
        return {
            "img_size": list(self.sides),
            "patch_size": self.patch_side,
            "in_chans": self.channels,
            "embed_dim": self.embed_dim,
            "depth": len(self.blocks),
            "num_heads": first.attn.heads,
            "mlp_ratio": first.mlp.fc1.out_features / self.embed_dim,
            "class_token": self.cls_token is not None,
            "global_pool": "token" if self.pool == "cls" else "avg",
            "fc_norm": False,  # ours norms all tokens before it averages them
            "init_values": None if gamma is None else 1e-5,  # only whether there is one
            "pos_embed": "none" if self.pos_embed is None else "learn",
            "num_classes": 0,
        }

    def timm_twin(self) -> nn.Module:
        """timm's network of the same shape, with random weights."""
        from timm.models.vision_transformer import VisionTransformer as Theirs

        return Theirs(**self.timm_arguments())


def vit(
    spec: Mapping[str, Any],
    *,
    patch: int,
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
    image_size: int | None = None,
) -> VisionTransformer:
    """A vision transformer for images with these facts.

    Positions are made for `image_size` (default: the spec's size, rounded down to whole patches);
    other sizes work too.
    """
    sides = size_of(spec) if image_size is None else (image_size, image_size)
    height, width = (max(patch, side - side % patch) for side in sides)
    return VisionTransformer(
        channels=channels_of(spec),
        size=(height, width),
        patch=patch,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        class_token=class_token,
        pool=pool,
        positions=positions,
        dropout=dropout,
        drop_path=drop_path,
        layer_scale=layer_scale,
    )


SIZES: dict[str, dict[str, Any]] = {
    "nano": {"dim": 96, "depth": 6, "heads": 3, "pool": "mean"},
    **PUBLISHED_SIZES,
}


def __getattr__(name: str) -> Any:
    """A factory for every `vit_<size>_patch<n>`, so that registries can point at it."""
    return sized(__name__, name, SIZES, vit)
