"""Vision transformers over tubelets under the field's names: `vit_base_patch16` and its relatives.

VideoMAE's networks (Tong et al. 2022): tubelets of 2 x 16 x 16 pixels, joint attention over space
and time, fixed positions. Weights interchange with transformers' VideoMAE of the same size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_core.encoder import Tokens
from ssl_core.networks.positions import resample_positions
from ssl_core.networks.vit import PUBLISHED_SIZES, PatchTransformer, Pool, Positions, sized
from ssl_video.encoders.spec import clip_shape
from ssl_video.encoders.videomae import flat_positions, from_videomae
from ssl_video.views.temporal import difference


class VideoTransformer(PatchTransformer):
    """A `PatchTransformer` on clips `[B, C, T, H, W]` with tubelets.

    `flat` takes VideoMAE's positions: one sine table over all tokens in raster order, the token's
    number as its place. Other grids than the one made for are interpolated. With `residual_frames`
    tokens are cut from differences of neighbouring frames, one fewer.
    """

    def __init__(self, *, flat: bool, residual_frames: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.flat, self.residual_frames = flat, residual_frames
        if flat:
            count = self.grid[0] * self.grid[1] * self.grid[2]
            table = torch.zeros_like(self.pos_embed)  # type: ignore[arg-type]
            table[0, self.prefix_count :] = flat_positions(count, self.embed_dim)
            self.pos_embed = table

    def tokenize(self, data: Tensor) -> Tokens:
        """Cuts `[B, C, T, H, W]` into tubelets `[B, N, P]`."""
        return super().tokenize(difference(data, int(self.residual_frames)))

    def adapt_weights(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """transformers' names become ours; tables of other grids are interpolated."""
        given = from_videomae(given)
        if self.pos_embed is not None and self.positions == "sincos":
            given.setdefault("pos_embed", self.pos_embed)  # fixed: no file has to hold it
        return super().adapt_weights(given)

    def _places(self, grid: tuple[int, ...]) -> Tensor | None:
        if self.flat and grid != self.grid and self.pos_embed is not None:
            table = self.pos_embed[0, self.prefix_count :]
            return resample_positions(table, self.grid, grid).unsqueeze(0)
        return super()._places(grid)


def vit(
    spec: Mapping[str, Any],
    *,
    patch: int,
    dim: int,
    depth: int,
    heads: int,
    tubelet: int = 2,
    mlp_ratio: float = 4.0,
    class_token: bool = False,
    pool: Pool = "mean",
    positions: Positions | str = "videomae",
    dropout: float = 0.0,
    drop_path: float = 0.0,
    layer_scale: float | None = None,
    residual_frames: bool = False,
) -> VideoTransformer:
    """A vision transformer for clips with these facts.

    `tubelet` is the number of frames a token covers. `positions` "videomae" is the flat sine table,
    "sincos" separable in time, height and width. With `residual_frames` the network sees, and a
    masked method predicts, differences of neighbouring frames; give clips one frame more.
    """
    if positions not in ("videomae", "learned", "sincos", "none"):
        raise ValueError(
            f"positions must be one of videomae, learned, sincos, none, got {positions!r}"
        )
    frames, height, width = clip_shape(spec)
    frames -= residual_frames
    if frames < tubelet:
        raise ValueError(f"clips are too short for tubelets of {tubelet}; raise views.frames")
    flat = positions == "videomae"
    own: Any = "sincos" if flat else positions
    return VideoTransformer(
        flat=flat,
        residual_frames=residual_frames,
        channels=int(spec.get("channels", 3)),
        sides=(
            frames - frames % tubelet,
            max(patch, height - height % patch),
            max(patch, width - width % patch),
        ),
        patch=(tubelet, patch, patch),
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=mlp_ratio,
        class_token=class_token,
        pool=pool,
        positions=own,
        dropout=dropout,
        drop_path=drop_path,
        layer_scale=layer_scale,
    )


SIZES: dict[str, dict[str, Any]] = {"nano": {"dim": 96, "depth": 6, "heads": 3}, **PUBLISHED_SIZES}


def __getattr__(name: str) -> Any:
    """A factory for every `vit_<size>_patch<n>`, so that registries can point at it."""
    return sized(__name__, name, SIZES, vit)
