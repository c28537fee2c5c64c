"""ELECTRA (Clark et al., ICLR 2020): which tokens did a small language model replace?

    L = CE of the generator at hidden tokens + weight * BCE over all real tokens (replaced or not)

15 % of the tokens are hidden; a narrow generator fills each with a sample of its distribution,
and the encoder tells replaced tokens from original ones. A sample that is the original counts as
original, and no gradient goes from the detection to the generator. Of the chosen, 15 % are left
as they are in the generator's input. The means are over tokens of the whole batch, as released;
[CLS] and [SEP] count there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.encoder import Tokens
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.masks import Mask
from ssl_core.objectives import masked_mean
from ssl_core.objectives.precision import full_precision
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy
from ssl_text.encoders.parts import Generator, bert_config
from ssl_text.methods.mlm import BertMasker
from ssl_text.telling import Told

Reps = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Filled = tuple[Tokens, Mask, Tensor, Tensor]


class ELECTRA(Method):
    """The encoder is the discriminator; the generator shares its embeddings and is thrown away.

    The generator's output matrix is these embeddings, too; `tied=False` gives it one of its own.
    """

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.15,
        generator: float = 0.25,
        weight: float = 50.0,
        tied: bool = True,
    ) -> None:
        super().__init__(encoder, views)
        bert_config(encoder, "electra")
        if not 0 < generator <= 1:
            raise ValueError(f"generator must be a share of the width in (0, 1], got {generator}")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.masker = BertMasker(mask_ratio, masked=0.85)
        self.generator = Generator(encoder, share=generator, tied=tied)  # type: ignore[arg-type]
        self.head = MLPHead(width, 1, hidden=width, layers=2, norm="none", activation="gelu")
        self.weight = weight

    def _filled(self, view: View) -> Filled:
        """Tokens, their mask, the generator's logits `[M, V]` and the ids it makes, `[B, L]`."""
        tokens: Tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        mask = self.masker(view.rng, tokens.values.shape[1], maskable=tokens.maskable)
        ids = tokens.values.masked_fill(mask.at_mask_token, self.encoder.mask_id)  # type: ignore[arg-type]
        with dropout_keys(view.rng.fold("generator")):
            embedded = self.encoder.embed_ids(ids)  # type: ignore[operator]
            logits = self.generator(embedded, tokens.valid, mask.hidden)
        with torch.no_grad():
            fake = tokens.values.clone()
            fake[mask.hidden] = sampled(logits, view.rng, mask.hidden)
        return tokens, mask, logits, fake

    def encode(self, views: Sequence[View]) -> Reps:
        view = views[0]
        tokens, mask, logits, fake = self._filled(view)
        costs = torch.zeros_like(tokens.values, dtype=torch.float32)
        costs[mask.hidden] = _cross_entropy(logits, tokens.values[mask.hidden])
        with dropout_keys(view.rng):
            features = self.encoder.encode(replace(tokens, values=fake))  # type: ignore[operator]
        self.monitored = features.pooled.detach()
        replaced = fake != tokens.values
        return costs, mask.hidden, self.head(features.tokens)[..., 0], replaced, tokens.valid

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """Hidden tokens, what the generator made of them, and where the encoder doubts a token."""
        tokens, mask, _, fake = self._filled(views[0])
        assert tokens.valid is not None, "text encoders say what is padding"
        scores = self.encode(views)[2]
        return {
            "hidden": self.encoder.told(tokens, mask, tokens.values),  # type: ignore[operator]
            "generated": Told(tokens.values, tokens.valid, fake, mask.hidden),
            "taken for replaced": Told(fake, tokens.valid, fake, (scores > 0) & tokens.valid),
        }

    def loss(self, reps: Reps) -> Loss:
        costs, hidden, scores, replaced, valid = reps
        parts = {
            "generator": masked_mean(costs, hidden),
            "detection": self.weight * detection(scores, replaced, valid),
        }
        right = ((scores > 0) == replaced) & valid
        share = (replaced & valid).sum() / valid.sum()
        return Loss.of(parts, {"accuracy": right.sum() / valid.sum(), "replaced": share})


@full_precision
def detection(scores: Tensor, replaced: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy of scores `[B, L]` over real tokens; zero scores cost log 2."""
    losses = F.binary_cross_entropy_with_logits(scores, replaced.to(scores.dtype), reduction="none")
    return masked_mean(losses, valid)


def sampled(logits: Tensor, rng: Rng, hidden: Tensor) -> Tensor:
    """One piece of each row's distribution, int64 `[M]`, by inversion of one uniform a token."""
    uniform = rng.uniform("sample", hidden.shape[1], dtype=torch.float64)[hidden]
    total = logits.double().softmax(-1).cumsum(-1)
    place = torch.searchsorted(total, uniform[:, None] * total[:, -1:], right=True)
    return place[:, 0].clamp(max=logits.shape[-1] - 1)


@full_precision
def _cross_entropy(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits, ids, reduction="none")
