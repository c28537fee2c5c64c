"""MixMIM (MixMAE; Liu et al., CVPR 2023): hide patches behind those of another sample.

    mixed = x (1 - m) + x' m;   L = mean over places of (decode(mixed)_i - t_i)^2
    t = normalised patch of x where m, of x' elsewhere: what is hidden in the mixed sample

Tokens attend only to their own sample's, so that one forward encodes the visible parts of two.
Each mixed sample is decoded twice, with mask vectors in the place of either part. Samples 2j and
2j + 1 are each other's partners under a mask of their own (in an odd batch the last one's is the
first); the released code shares one mask and reverses the batch. It uses windowed, hierarchical
attention; here any `PatchTransformer` without class token serves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.methods.masked import Prediction, token_widths
from ssl_core.networks.decoders import TransformerDecoder
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import Mask, RandomMasker
from ssl_core.objectives import masked_pixels, normalise_patches
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy


class MixMIM(Method):
    """A token encoder in mix mode and MAE's decoder."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.5,
        mask_unit: int = 2,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        norm_pixels: bool = True,
    ) -> None:
        super().__init__(encoder, views)
        width, token_dim = token_widths(encoder)
        if getattr(encoder, "prefix_count", 1):
            raise UserError(
                "encoder: mixmim needs a transformer without class token; set class_token: false "
                "and pool: mean"
            )
        self.masker = RandomMasker(mask_ratio, mode="replace", unit=mask_unit)
        self.norm_pixels = norm_pixels
        self.decoder = TransformerDecoder(
            width, token_dim, dim=decoder_dim, depth=decoder_depth, heads=decoder_heads
        )

    def encode(self, views: Sequence[View]) -> list[Prediction]:
        return [self._predict(view) for view in views]

    def _predict(self, view: View) -> Prediction:
        tokens: Tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        partner = partners(len(view), view.rng.device)
        pair = Rng(view.rng.key[torch.minimum(partner, partner[partner])])
        count = tokens.values.shape[1]
        hidden = self.masker(pair, count, grid=tokens.grid, maskable=tokens.maskable).hidden
        mixed, target = mix(tokens.values, hidden, partner)
        shown = Tokens(mixed, tokens.grid, tokens.coords)
        with dropout_keys(view.rng):
            features: Features = self.encoder.encode(shown, Mask(hidden, "mix", tokens.grid))  # type: ignore[operator]
            own = self.decoder(features, Mask(hidden, "replace", tokens.grid), shown)
            other = self.decoder(features, Mask(~hidden, "replace", tokens.grid), shown)
        self.monitored = features.pooled.detach()
        predicted = torch.where(hidden.unsqueeze(-1), own, other)
        everywhere = Mask(torch.ones_like(hidden), "mix", tokens.grid)
        target = normalise_patches(target) if self.norm_pixels else target
        return Prediction(predicted, target, everywhere, None, features.pooled)

    def loss(self, reps: list[Prediction]) -> Loss:
        losses = [masked_pixels(rep.predicted, rep.target, rep.mask) for rep in reps]
        return Loss.of({"reconstruction": torch.stack(losses).mean()})


def partners(rows: int, device: torch.device) -> Tensor:
    """Whose content hides row i: its neighbour in pairs of two, the first for an odd last row."""
    if rows < 2:
        raise UserError("batch_size: mixing needs at least two samples on each device")
    index = torch.arange(rows, device=device)
    return torch.where(index == rows - rows % 2, 0, index ^ 1)


def mix(values: Tensor, hidden: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens `[B, N, P]` with the partner's where `hidden`; and what that leaves to predict."""
    where, others = hidden.unsqueeze(-1), values[partner]
    return torch.where(where, others, values), torch.where(where, values, others)
