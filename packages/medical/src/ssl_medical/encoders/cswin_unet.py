"""A U-Net of cross-shaped windows (CSwin UNet; Li et al., Medical Physics 2025).

`CSwin` goes down. Every step up is a transposed convolution to twice the resolution, the finer map
beside it, a linear layer and a block with that map's heads and stripes; a last transposed
convolution of the stem's stride and batch norm give one map at the input's resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_medical.encoders.cswin import Block, CSwin, cswin, fitted
from ssl_medical.encoders.resnet_nano import NORM, pooled

_GROW = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class Rise(nn.Module):
    """`[B, coarse, *grid]` and the finer `[B, fine, *2 grid]` to `[B, fine, *2 grid]`."""

    def __init__(
        self, coarse: int, fine: int, heads: int, *, axes: int, stripe: int, mlp_ratio: float,
        stream: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.grow = _GROW[axes](coarse, fine, 2, 2)
        self.join = nn.Linear(2 * fine, fine)
        self.block = Block(
            fine, heads, axes=axes, stripe=stripe, mlp_ratio=mlp_ratio, drop_path=0.0, stream=stream
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        x = torch.cat([self.grow(coarse), fine], dim=1).movedim(1, -1)
        return self.block(self.join(x)).movedim(-1, 1)  # type: ignore[no-any-return]


class CSwinUNet(nn.Module):
    """Features are those of the coarsest map; `dense` is `[B, dense_dim, *sides]`, not negative."""

    def __init__(
        self,
        down: CSwin,
        *,
        dim: int,
        heads: Sequence[int],
        stripes: Sequence[int],
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.down = down
        self.axes, self.embed_dim, self.dense_dim = down.axes, down.embed_dim, dim
        self.up = nn.ModuleDict()
        for stage in reversed(range(len(down.levels) - 1)):
            fine, coarse = down.levels[stage : stage + 2]
            self.up[f"rise{stage}"] = Rise(
                coarse, fine, heads[stage], axes=down.axes, stripe=stripes[stage],
                mlp_ratio=mlp_ratio, stream=f"cswin.up.{stage}",
            )  # fmt: skip
        stride = down.strides[0]
        self.up["norm"] = nn.LayerNorm(down.levels[0])
        self.up["last"] = _GROW[down.axes](down.levels[0], dim, stride, stride)
        # Tasks that need few numbers a voxel would leave most of the map's channels without any.
        self.up["spread"] = NORM[down.axes](dim)

    def forward(self, data: Tensor) -> Features:
        return self.down(data)  # type: ignore[no-any-return]

    def dense(self, data: Tensor) -> tuple[Features, Tensor]:
        """Features, and the map at the input's resolution, in one pass."""
        maps = self.down.stages(data)
        x = maps[-1]
        for stage in reversed(range(len(maps) - 1)):
            x = self.up[f"rise{stage}"](x, maps[stage])
        x = self.up["norm"](x.movedim(1, -1)).movedim(-1, 1)
        return pooled(maps[-1]), F.relu(self.up["spread"](self.up["last"](x)))


def cswin_unet(
    spec: Mapping[str, Any],
    *,
    dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    stripes: Sequence[int],
    dense_dim: int,
    stem_stride: int = 4,
    mlp_ratio: float = 4.0,
    drop_path: float = 0.0,
    axes: int | None = None,
) -> CSwinUNet:
    """`cswin` and a way up that mirrors it; on three axes heads and widths are rounded up alike."""
    down = cswin(
        spec, dim=dim, depths=depths, heads=heads, stripes=stripes, stem_stride=stem_stride,
        mlp_ratio=mlp_ratio, drop_path=drop_path, axes=axes,
    )  # fmt: skip
    return CSwinUNet(
        down, dim=dense_dim, heads=fitted(heads, down.axes), stripes=stripes, mlp_ratio=mlp_ratio
    )


def nano(
    spec: Mapping[str, Any],
    *,
    dim: int = 24,
    depths: Sequence[int] = (1, 1, 2),
    heads: Sequence[int] = (3, 6, 12),
    stripes: Sequence[int] = (1, 2, 0),
    dense_dim: int = 16,
    stem_stride: int = 2,
    axes: int | None = None,
) -> CSwinUNet:
    """About 0.4 M parameters with the defaults, for a CPU."""
    return cswin_unet(
        spec, dim=dim, depths=depths, heads=heads, stripes=stripes, dense_dim=dense_dim,
        stem_stride=stem_stride, axes=axes,
    )  # fmt: skip


def tiny(
    spec: Mapping[str, Any],
    *,
    dim: int = 64,
    depths: Sequence[int] = (1, 2, 21, 1),
    heads: Sequence[int] = (2, 4, 8, 16),
    stripes: Sequence[int] = (1, 2, 7, 0),
    dense_dim: int = 48,
    mlp_ratio: float = 4.0,
    drop_path: float = 0.2,
    axes: int | None = None,
) -> CSwinUNet:
    """CSWin-T on the way down."""
    return cswin_unet(
        spec, dim=dim, depths=depths, heads=heads, stripes=stripes, dense_dim=dense_dim,
        mlp_ratio=mlp_ratio, drop_path=drop_path, axes=axes,
    )  # fmt: skip
