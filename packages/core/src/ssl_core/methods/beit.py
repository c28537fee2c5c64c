"""BEiT (Bao et al., ICLR 2022): predict the discrete codes of hidden patches.

    L = mean over hidden tokens of -log softmax(W h_i)[code_i] + mean over tokens of (x - d(code))^2

Rectangles hide int(N ratio) patches, which show a learned vector. The paper's codes come from
DALL-E's frozen image tokenizer, trained on 250 million pictures; here a small tokenizer of single
tokens learns beside the encoder (second term, which the encoder's gradient never meets), so that
any domain has one. Codes used evenly and guessed blindly cost log(codes). With `norm_pixels` the
tokenizer sees patches of mean 0 and variance 1, as MAE's targets are: for inputs whose level and
contrast say nothing, which few codes would otherwise be spent on. With `codes_of` "histograms" x is
MaskFeat's gradient histogram of a patch, so that codes tell its edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.methods.base import Loss
from ssl_core.methods.histogram_targets import PatchHistograms
from ssl_core.methods.masked import MaskedModel, Prediction, token_widths
from ssl_core.networks.decoders import HiddenLogits
from ssl_core.networks.maskers import MaskKind, make_masker
from ssl_core.networks.masks import Mask
from ssl_core.networks.tokenizer import PatchTokenizer
from ssl_core.objectives import masked_token_cross_entropy, mse, normalise_patches
from ssl_core.views import View, ViewPolicy


class BEiT(MaskedModel):
    """A token encoder in replace mode, one linear layer, prod(`levels`) codes."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask: MaskKind = "rectangles",
        mask_ratio: float = 75 / 196,
        mask_block: int = 16,
        levels: Sequence[int] = (8, 8, 8, 4, 4),
        tokenizer_hidden: int = 256,
        norm_pixels: bool = False,
        codes_of: Literal["pixels", "histograms"] = "pixels",
        cells: int = 2,
    ) -> None:
        width, token_dim = token_widths(encoder)
        if codes_of not in ("pixels", "histograms"):
            raise ValueError(f"codes_of must be pixels or histograms, got {codes_of!r}")
        histograms = None
        if codes_of == "histograms":
            if norm_pixels:
                raise ValueError("norm_pixels is for codes of pixels: histograms have unit length")
            histograms = PatchHistograms(encoder, cells=cells)
            token_dim = histograms.size
        tokenizer = PatchTokenizer(token_dim, levels=levels, hidden=tokenizer_hidden)
        super().__init__(
            encoder,
            views,
            masker=make_masker(mask, mask_ratio, mode="replace", block=mask_block),
            decoder=HiddenLogits(width, tokenizer.codes),
            target=self._codes,
            reconstruction=masked_token_cross_entropy,
        )
        self.tokenizer = tokenizer
        self.norm_pixels = norm_pixels
        self.histograms = histograms

    def _patches(self, tokens: Tokens) -> Tensor:
        if self.histograms is not None:
            return self.histograms(tokens)
        return normalise_patches(tokens.values) if self.norm_pixels else tokens.values

    def _codes(self, tokens: Tokens, mask: Mask) -> Tensor:
        ids: Tensor = self.tokenizer(self._patches(tokens))[1]
        return ids

    def encode(self, views: Sequence[View]) -> list[tuple[Prediction, Tensor, Tensor]]:  # type: ignore[override]
        reps = []
        for view in views:
            values = self._patches(self.encoder.tokenize(view.data))  # type: ignore[operator]
            rebuilt, ids = self.tokenizer(values)
            reps.append((self._predict(view, ids), values, rebuilt))
        return reps

    def loss(self, reps: list[tuple[Prediction, Tensor, Tensor]]) -> Loss:  # type: ignore[override]
        tokens = super().loss([prediction for prediction, _, _ in reps])
        rebuilt = [mse(made, values) for _, values, made in reps]
        parts = {"tokens": tokens.total, "tokenizer": torch.stack(rebuilt).mean()}
        return Loss.of(parts, {"codes_used": codes_used(reps[0][0].target, self.tokenizer.codes)})


@torch.no_grad()
def codes_used(ids: Tensor, codes: int) -> Tensor:
    """exp of the entropy of how often each code occurs: 1 when all tokens share one."""
    share = torch.bincount(ids.flatten(), minlength=codes).double() / ids.numel()
    used: Tensor = torch.special.entr(share).sum().exp()
    return used
