"""MaskFeat (Wei et al., CVPR 2022): predict the gradient histograms of hidden patches.

    L = mean over hidden tokens of mean_j (y_ij - HOG_ij)^2

HOG has 9 unsigned orientations in cells of half a patch, per channel, each cell of unit length:
edges rather than colours, and nothing that a teacher or a tokenizer would have to learn. Hidden
patches show a learned vector. In clips the target of a patch is that of its first frame.
"""

from __future__ import annotations

from torch import nn

from ssl_core.methods.histogram_targets import PatchHistograms
from ssl_core.methods.masked import MaskedModel, token_widths
from ssl_core.networks.decoders import PixelShuffleHead
from ssl_core.networks.maskers import MaskKind, make_masker
from ssl_core.objectives import masked_pixels
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
        histograms = PatchHistograms(encoder, bins=bins, cells=cells)
        width, _ = token_widths(encoder)
        super().__init__(
            encoder,
            views,
            masker=make_masker(mask, mask_ratio, mode="replace", block=mask_block),
            decoder=PixelShuffleHead(width, histograms.size),
            target=lambda tokens, mask: histograms(tokens),
            reconstruction=masked_pixels,
        )
