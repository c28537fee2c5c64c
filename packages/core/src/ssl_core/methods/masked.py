"""Masked prediction, written once: masker, encoder, decoder, target, loss.

MAE, SimMIM, BERT's MLM and GraphMAE are this class with different parts. The order of one step:

    tokens = encoder.tokenize(view)         content, before any learned layer
    mask = masker(view.rng, ...)            made once, used by everything below
    target = target(tokens, mask)           no gradient
    tokens = corrupt(tokens, mask, rng)     optional: swaps content (BERT's random words)
    features = encoder.encode(tokens, mask) hidden tokens dropped or replaced
    prediction = decoder(features, mask, tokens)
    loss(prediction, target, mask)          over hidden tokens only
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import replace as copy
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features, Tokens, token_width
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import Mask, Masker
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy

Target = Callable[[Tokens, Mask], Tensor]
Corruption = Callable[[Tokens, Mask, Rng], Tokens]
Reconstruction = Callable[[Tensor, Tensor, Mask], Tensor]


@dataclass
class Prediction:
    """What a masked method compares, for one view."""

    predicted: Tensor
    """`[B, N, T]` (or logits `[B, N, V]`); of hidden tokens alone `[B, H, T]` or `[M, V]`."""
    target: Tensor
    """`[B, N, T]` (or ids `[B, N]`), without gradient; `[B, H, T]` beside such a prediction."""
    mask: Mask
    valid: Tensor | None
    pooled: Tensor
    """The student's `[B, D]`."""


def token_widths(encoder: nn.Module) -> tuple[int, int]:
    """Width and content (`token_dim`) of a token encoder's tokens; `UserError` for any other."""
    for needed in ("tokenize", "encode", "token_dim"):
        if not hasattr(encoder, needed):
            raise UserError(
                f"encoder: masked methods need a token encoder (with `{needed}`), "
                f"got {type(encoder).__name__}; choose a ViT, a graph or a text encoder"
            )
    return token_width(encoder), encoder.token_dim  # type: ignore[return-value]


def one_width(encoder: nn.Module, method: str) -> None:
    """Raises `UserError` where pooled features are wider than tokens, which `method` compares."""
    if token_width(encoder) != encoder.embed_dim:
        raise UserError(
            f"encoder: {method} compares pooled features with tokens, which are "
            f"{encoder.embed_dim} and {token_width(encoder)} wide here; set encoder.pool to mean "
            "or cls"
        )


def token_patch(encoder: nn.Module) -> tuple[int, ...]:
    """The size of an encoder's patches, one number an axis; (1,) where tokens are no patches."""
    holder = getattr(encoder, "patch_embed", encoder)
    patch: tuple[int, ...] = getattr(holder, "patch", (1,))
    return patch


class MaskedModel(Method):
    """Predict the content of hidden tokens.

    `decoder(features, mask, tokens) -> [B, N, T]` is a module; `target`, `corrupt` and
    `reconstruction` are functions of tensors. `reconstruction(predicted, target, mask)` returns
    the mean loss over hidden tokens of the batch. With `masks` above 1 every sample is encoded
    under as many masks, its rows one after another, while its target is made once.
    """

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        masker: Masker,
        decoder: nn.Module,
        target: Target,
        reconstruction: Reconstruction,
        corrupt: Corruption | None = None,
        masks: int = 1,
    ) -> None:
        super().__init__(encoder, views)
        if masks < 1:
            raise ValueError(f"masks must be at least 1, got {masks}")
        token_widths(encoder)
        if getattr(masker, "mode", None) == "replace" and hasattr(encoder, "enable_mask_token"):
            encoder.enable_mask_token()  # type: ignore[operator]
        self.masker = masker
        self.decoder = decoder
        self.target = target
        self.reconstruction = reconstruction
        self.corrupt = corrupt
        self.masks = masks

    def encode(self, views: Sequence[View]) -> list[Prediction]:
        return [self._predict(view) for view in views]

    def mask(self, rng: Rng, tokens: Tokens) -> Mask:
        """Which tokens are hidden; subclasses whose maskers need more than places override it."""
        maskable = tokens.valid if tokens.maskable is None else tokens.maskable
        return self.masker(rng, tokens.values.shape[1], grid=tokens.grid, maskable=maskable)

    def _predict(self, view: View, target: Tensor | None = None) -> Prediction:
        """`target` saves making it, where the caller has it of every sample already."""
        tokens: Tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        rng, seen = view.rng, tokens
        if self.masks > 1:
            clones = [rng.fold("mask", number).key for number in range(self.masks)]
            rng, seen = Rng(torch.stack(clones, dim=1).flatten()), tokens.repeated(self.masks)
        mask = self.mask(rng, seen)
        if target is None:
            with torch.no_grad():
                target = self.target(tokens, mask)
        target = target.repeat_interleave(self.masks, dim=0)
        shown = seen if self.corrupt is None else self.corrupt(seen, mask, rng)
        with dropout_keys(rng):
            features: Features = self.encoder.encode(shown, mask)  # type: ignore[operator]
            self.monitored = features.pooled.detach()
            predicted = self.decoder(features, mask, shown)
        return Prediction(predicted, target, mask, seen.valid, features.pooled)

    def content(self, rep: Prediction, tokens: Tokens) -> Tensor | None:
        """What was predicted, like `tokens.values` and in their units; None where it has none."""
        return None

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """The first view with its hidden parts left out, and with these as predicted.

        Encoders turn contents into such data by `assemble(values, grid)`, or by `rebuild(tokens,
        values)` where more than a grid is needed; one of ids tells which are hidden (`told`).
        """
        tokens: Tokens = self.encoder.tokenize(views[0].data)  # type: ignore[operator]
        rep = self._predict(views[0])
        if hasattr(self.encoder, "told"):
            first = copy(rep.mask, hidden=rep.mask.hidden[:: self.masks])
            return {"hidden": self.encoder.told(tokens, first, tokens.values)}  # type: ignore[operator]
        drawn = self._drawer(tokens)
        if drawn is None:
            return {}
        hidden = rep.mask.hidden[:: self.masks].unsqueeze(-1)  # the first mask of each sample
        pictures = {"hidden": drawn(tokens.values.masked_fill(hidden, torch.nan))}
        content = self.content(rep, tokens) if self.masks == 1 else None
        if content is not None:
            filled = torch.where(hidden, content.to(tokens.values.dtype), tokens.values)
            pictures["predicted"] = drawn(filled)
        return pictures

    def _drawer(self, tokens: Tokens) -> Callable[[Tensor], Any] | None:
        """From contents like `tokens.values` to data like a view's."""
        if hasattr(self.encoder, "assemble"):
            return lambda values: self.encoder.assemble(values, tokens.grid)  # type: ignore[operator]
        if hasattr(self.encoder, "rebuild"):
            return lambda values: self.encoder.rebuild(tokens, values)  # type: ignore[operator]
        return None

    def loss(self, reps: list[Prediction]) -> Loss:
        losses = [self.reconstruction(rep.predicted, rep.target, rep.mask) for rep in reps]
        return Loss.of({"reconstruction": torch.stack(losses).mean()})
