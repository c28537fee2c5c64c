"""Gradient histograms of patches, as targets of masked methods (MaskFeat: Wei et al. 2022)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.errors import UserError
from ssl_core.methods.masked import token_patch, token_widths
from ssl_core.networks.patch_embed import unpatchify
from ssl_core.objectives import hog, hog_patches


class PatchHistograms:
    """HOG of every patch, `[B, N, size]`: `bins` unsigned orientations in `cells` x `cells` cells.

    Of each channel, each cell of unit length. A gradient at a patch's border takes its neighbour
    into account. In clips it is that of a patch's first frame.
    """

    def __init__(self, encoder: nn.Module, *, cells: int, bins: int = 9) -> None:
        _, token_dim = token_widths(encoder)
        self.patch, self.bins, self.cells = token_patch(encoder), bins, cells
        if len(self.patch) < 2 or self.patch[-1] != self.patch[-2] or self.patch[-1] % cells:
            raise UserError(
                f"encoder: histograms need square patches whose side {cells} cells divide, "
                f"got patches of {'x'.join(map(str, self.patch))}"
            )
        self.size = token_dim // math.prod(self.patch) * bins * cells**2

    def __call__(self, tokens: Tokens) -> Tensor:
        x = unpatchify(tokens.values, self.patch, tokens.grid)  # [B, C, (T,) H, W]
        rows = x.shape[0]
        if x.dim() == 5:
            x = x[:, :, :: self.patch[0]].transpose(1, 2).flatten(0, 1)  # [B T', C, H, W]
        histograms = hog(x, bins=self.bins, cell=self.patch[-1] // self.cells)
        patches = hog_patches(histograms, patch_cells=self.cells)
        return patches.reshape(rows, -1, patches.shape[-1])
