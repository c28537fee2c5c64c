"""TERA (Liu et al., TASLP 2021): restore frames altered along time, frequency and magnitude.

    L = mean over scored cells of |y - x|

Spectrogram in, spectrogram out; the input is altered, never hidden, so the encoder needs no mask
token. Scored are the cells of altered frames and bands, also of frames that were chosen but kept.
With `norm_patches` every token is restored with mean 0 and variance 1, so that level and colour of
a recording, which are chance, are not the first things an encoder learns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_audio.alterations import Alteration
from ssl_core.encoder import Tokens
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.methods.masked import token_widths
from ssl_core.objectives import masked_mean, normalise_patches
from ssl_core.views import View, ViewPolicy

Reps = list[tuple[Tensor, Tensor, Tensor]]


class TERA(Method):
    """Any token encoder of spectrograms; each axis is switched off by 0."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        time: float = 0.15,
        span: int = 7,
        frequency: float = 0.2,
        magnitude: float = 0.15,
        noise: float = 0.2,
        norm_patches: bool = False,
    ) -> None:
        super().__init__(encoder, views)
        width, token_dim = token_widths(encoder)
        if not hasattr(encoder, "assemble"):
            raise UserError(f"encoder: TERA restores spectrograms, got {type(encoder).__name__}")
        if not (time or frequency or magnitude):
            raise ValueError("time, frequency and magnitude are all 0: nothing would be altered")
        self.norm_patches = norm_patches
        self.alteration = Alteration(time, span, frequency, magnitude, noise)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, token_dim)
        )

    def encode(self, views: Sequence[View]) -> Reps:
        return [self._restore(view) for view in views]

    def _restore(self, view: View) -> tuple[Tensor, Tensor, Tensor]:
        x = view.data[:, 0]  # [B, F, T]
        altered, scored = self.alteration.apply(x, self.alteration.sample(view.rng, *x.shape[1:]))
        shown = View(altered.unsqueeze(1), view.rng)
        features = self.features([shown])[0]
        assert features.tokens is not None
        whole = self.encoder.assemble(self.head(features.tokens), features.grid)  # type: ignore[operator]
        return whole[:, 0], self._target(view.data), scored

    def _target(self, data: Tensor) -> Tensor:
        """`[B, F, T]`: the spectrogram, or each token of it normalised."""
        if not self.norm_patches:
            return data[:, 0]
        tokens: Tokens = self.encoder.tokenize(data)  # type: ignore[operator]
        normalised = normalise_patches(tokens.values)
        return self.encoder.assemble(normalised, tokens.grid)[:, 0]  # type: ignore[operator]

    def shown(self, views: Sequence[View]) -> dict[str, Tensor]:
        x = views[0].data[:, 0]
        drawn = self.alteration.sample(views[0].rng, *x.shape[1:])
        restored = self._restore(views[0])[0][:, None]
        if self.norm_patches:
            made: Tokens = self.encoder.tokenize(restored)  # type: ignore[operator]
            heard: Tokens = self.encoder.tokenize(views[0].data)  # type: ignore[operator]
            std, mean = torch.std_mean(heard.values, -1, keepdim=True)
            restored = self.encoder.assemble(made.values * std + mean, made.grid)  # type: ignore[operator]
        return {"altered": self.alteration.apply(x, drawn)[0][:, None], "restored": restored}

    def loss(self, reps: Reps) -> Loss:
        losses = [masked_mean((y - x).abs(), scored) for y, x, scored in reps]
        return Loss.of({"restoration": torch.stack(losses).mean()})
