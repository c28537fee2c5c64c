"""SimMIM (Xie et al., CVPR 2022): the encoder sees all places, one layer predicts raw pixels.

    L = sum_i m_i mean_j |y_ij - t_ij| / sum_i m_i,   t = patch pixels, not normalised

over the hidden patches. Hidden patches are replaced by a learned vector after the embedding;
ceil(ratio x units) square units of patches are hidden (32 pixels a unit: 2 x 2 patches of 16).
The released code divides by the hidden pixels + 1e-5; that constant is left out. With
`norm_pixels` each target patch has mean 0 and variance 1, as in MAE: for inputs whose level and
colour are chance (recordings), which raw targets make an encoder learn first.
"""

from __future__ import annotations

from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.methods.masked import MaskedModel, Prediction, token_widths
from ssl_core.methods.pixel_targets import Norm, pixel_target, pixels_of
from ssl_core.networks.decoders import PixelShuffleHead
from ssl_core.networks.masks import RandomMasker
from ssl_core.objectives import masked_l1
from ssl_core.views import ViewPolicy


class SimMIM(MaskedModel):
    """A token encoder in replace mode, a linear head, absolute error.

    `mask_unit` is the side of a unit in tokens; it must divide the token grid.
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.6,
        mask_unit: int = 2,
        norm_pixels: Norm = False,
    ) -> None:
        super().__init__(
            encoder,
            views,
            masker=RandomMasker(mask_ratio, mode="replace", unit=mask_unit, count_rule="ceil"),
            decoder=PixelShuffleHead(
                *token_widths(encoder), reduction=getattr(encoder, "reduction", 1)
            ),
            target=pixel_target(encoder, norm_pixels),
            reconstruction=masked_l1,
        )
        self.norm_pixels = norm_pixels

    def content(self, rep: Prediction, tokens: Tokens) -> Tensor:
        return pixels_of(self.encoder, self.norm_pixels, rep.predicted, tokens.values)
