"""MAE (He et al., CVPR 2022): encode the visible patches alone, predict the hidden ones.

    L = sum_i m_i mean_j (y_ij - t_ij)^2 / sum_i m_i,   t = (patch - mean) / sqrt(var + 1e-6)

over the hidden patches (m_i = 1) of the whole batch; the variance is unbiased. Nothing else is
predicted: the last of the decoder's blocks follows hidden patches alone. Predicting zero
costs (n - 1)/n for patches of n numbers: a run above that line has learned nothing. As released,
int(N (1 - ratio)) patches stay visible. Any token grid works: images, spectrograms, volumes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.methods.masked import MaskedModel, Prediction, token_widths
from ssl_core.methods.pixel_targets import Norm, pixel_target, pixels_of
from ssl_core.networks.decoders import TransformerDecoder
from ssl_core.networks.maskers import MaskKind, make_masker
from ssl_core.networks.masks import Mask
from ssl_core.objectives import masked_pixels
from ssl_core.views import ViewPolicy


class MAE(MaskedModel):
    """A token encoder in drop mode, a light transformer decoder, squared error.

    `mask` says what is hidden: "tubes" is VideoMAE's mask, "frames" hides frames of spectrograms.
    `norm_pixels` "channel" normalises each colour of a patch alone, as VideoMAE does.
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.75,
        mask: MaskKind = "random",
        mask_block: int = 1,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        norm_pixels: Norm = True,
    ) -> None:
        super().__init__(
            encoder,
            views,
            masker=make_masker(mask, mask_ratio, mode="drop", block=mask_block),
            decoder=TransformerDecoder(
                *token_widths(encoder),
                dim=decoder_dim,
                depth=decoder_depth,
                heads=decoder_heads,
                hidden_only=True,
            ),
            target=pixel_target(encoder, norm_pixels, hidden_only=True),
            reconstruction=hidden_pixels,
        )
        self.norm_pixels = norm_pixels

    def content(self, rep: Prediction, tokens: Tokens) -> Tensor:
        patches = rep.mask.concealed(tokens.values)
        pixels = pixels_of(self.encoder, self.norm_pixels, rep.predicted, patches)
        return rep.mask.reveal(pixels, tokens.values)


def hidden_pixels(predicted: Tensor, target: Tensor, mask: Mask) -> Tensor:
    """`masked_pixels` of hidden patches alone: both `[B, H, P]`, all of which count."""
    everything = torch.ones(predicted.shape[:2], dtype=torch.bool, device=predicted.device)
    return masked_pixels(predicted, target, Mask(everything, "replace"))
