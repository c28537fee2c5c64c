"""MaskFeat (Wei et al., CVPR 2022): predict the gradient histograms of hidden patches.

    L = mean over hidden tokens of mean_j (y_ij - HOG_ij)^2

HOG has 9 unsigned orientations in cells of half a patch, per channel, each cell of unit length:
edges rather than colours, and nothing that a teacher or a tokenizer would have to learn. Hidden
patches show a learned vector. In clips the target of a patch is that of its first frame.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.errors import UserError
from ssl_core.methods.masked import MaskedModel, token_patch, token_widths
from ssl_core.networks.decoders import PixelShuffleHead
from ssl_core.networks.maskers import MaskKind, make_masker
from ssl_core.networks.masks import Mask
from ssl_core.networks.patch_embed import unpatchify
from ssl_core.objectives import hog, hog_patches, masked_pixels
from ssl_core.views import ViewPolicy


class MaskFeat(MaskedModel):
    """A token encoder in replace mode, one linear layer, histograms of `bins` orientations."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask: MaskKind = "rectangles",
        mask_ratio: float = 0.4,
        mask_block: int = 16,
        bins: int = 9,
        cells: int = 2,
    ) -> None:
        width, token_dim = token_widths(encoder)
        patch = token_patch(encoder)
        if len(patch) < 2 or patch[-1] != patch[-2] or patch[-1] % cells:
            raise UserError(
                f"encoder: histograms need square patches whose side {cells} cells divide, "
                f"got patches of {'x'.join(map(str, patch))}"
            )
        size = token_dim // math.prod(patch) * bins * cells**2
        super().__init__(
            encoder,
            views,
            masker=make_masker(mask, mask_ratio, mode="replace", block=mask_block),
            decoder=PixelShuffleHead(width, size),
            target=self._histograms,
            reconstruction=masked_pixels,
        )
        self.patch, self.bins, self.cells = patch, bins, cells

    def _histograms(self, tokens: Tokens, mask: Mask) -> Tensor:
        x = unpatchify(tokens.values, self.patch, tokens.grid)  # [B, C, (T,) H, W]
        rows = x.shape[0]
        if x.dim() == 5:
            x = x[:, :, :: self.patch[0]].transpose(1, 2).flatten(0, 1)  # [B T', C, H, W]
        histograms = hog(x, bins=self.bins, cell=self.patch[-1] // self.cells)
        patches = hog_patches(histograms, patch_cells=self.cells)
        return patches.reshape(rows, -1, patches.shape[-1])
