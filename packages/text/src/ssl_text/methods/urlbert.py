"""URLBERT (2024): words, robustness to adversarial noise, and agreement of two noisy passes.

    L = MLM + adversarial * VAT + contrast * NT-Xent of [CLS] under two adversarial noises

VAT adds noise of about unit length a token to the embeddings of the masked document, along the
gradient of the divergence of its predictions. The two contrasted passes differ in dropout and in
their noise (two ascents of 0.1 and of 1e-5). The release updates the encoder twice a step, with
an optimiser for each; here the losses add up, `contrast` taking the place of its ten-fold rate.
It also masks its input twice and adds positions twice, which is not its formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import Mask
from ssl_core.objectives import nt_xent
from ssl_core.objectives.adversarial import adversarial_noise, virtual_adversarial
from ssl_core.objectives.masked import masked_token_cross_entropy
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy
from ssl_text.methods.mlm import MLM

Reps = tuple[Tensor, Tensor, Tensor, Tensor]
PASSES = ((0, 0.1), (1, 1e-5))
"""The two contrasted passes and the size of their two ascents."""
SMALL = 1e-5
"""Length scale of the noise before its first ascent."""


class URLBERT(Method):
    """A text encoder with BERT's head; one plain view."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.15,
        adversarial: float = 10.0,
        contrast: float = 1.0,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(encoder, views)
        self.language = MLM(encoder, views, mask_ratio=mask_ratio)
        self.adversarial, self.contrast, self.temperature = adversarial, contrast, temperature

    def encode(self, views: Sequence[View]) -> Reps:
        view = views[0]
        tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        mask = self.language.mask(view.rng, tokens)
        assert self.language.corrupt is not None, "BERT swaps some words"
        shown = self.language.corrupt(tokens, mask, view.rng)
        ids = shown.values.masked_fill(mask.at_mask_token, self.encoder.mask_id)  # type: ignore[arg-type]
        logits_of = self._logits_of(tokens, view.rng)
        embedded = self.encoder.embed_ids(ids)  # type: ignore[operator]
        clean = logits_of(embedded)
        cost = masked_token_cross_entropy(clean[mask.hidden], tokens.values, mask)
        start = SMALL * view.rng.normal("vat", *embedded.shape[1:], dtype=embedded.dtype)
        vat = virtual_adversarial(logits_of, embedded, start, clean=clean)
        first, second = (self._pass(tokens, view.rng.fold("pass", n), s) for n, s in PASSES)
        self.monitored = first.detach()
        rows = len(view)
        return cost.expand(rows), vat.expand(rows), first, second

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """What the masked language model sees and guesses."""
        return self.language.shown(views)

    def loss(self, reps: Reps) -> Loss:
        cost, vat, first, second = reps
        contrast = nt_xent(first, second, temperature=self.temperature)
        return Loss.of(
            {
                "mlm": cost.mean(),
                "adversarial": self.adversarial * vat.mean(),
                "contrast": self.contrast * contrast,
            }
        )

    def _logits_of(self, tokens: Tokens, rng: Rng) -> Callable[[Tensor], Tensor]:
        """Predictions `[B, L, V]` of embeddings under one dropout; padding predicts nothing."""
        assert tokens.valid is not None, "text encoders say what is padding"
        everywhere = Mask(tokens.valid, "replace", tokens.grid)

        def logits_of(embedded: Tensor) -> Tensor:
            with dropout_keys(rng):
                features = self.encoder.encode_embedded(embedded, tokens)  # type: ignore[operator]
            rows = self.language.decoder(features, everywhere, tokens)
            out = rows.new_zeros(*everywhere.hidden.shape, rows.shape[-1])
            return out.masked_scatter(everywhere.hidden[..., None], rows)

        return logits_of

    def _pass(self, tokens: Tokens, rng: Rng, step: float) -> Tensor:
        """[CLS] `[B, D]` of the whole document under adversarial noise and dropout of its own."""
        logits_of = self._logits_of(tokens, rng)
        embedded = self.encoder.embed_ids(tokens.values)  # type: ignore[operator]
        with torch.no_grad():
            clean = logits_of(embedded)
        start = SMALL * rng.normal("noise", *embedded.shape[1:], dtype=embedded.dtype)
        noise = adversarial_noise(logits_of, embedded, clean, start, steps=(step, step))
        with dropout_keys(rng):
            features = self.encoder.encode_embedded(embedded + noise, tokens)  # type: ignore[operator]
        state: Tensor = features.tokens[:, 0]
        return state
