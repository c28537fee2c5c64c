"""SSAST (Gong et al., AAAI 2022): name the hidden patches, and draw them.

    L = -1/n sum_i log softmax_j(c_i . x_j)[i] + weight 1/n sum_i mean (r_i - x_i)^2

x are the n hidden patches of one recording, c and r what two small heads say about them; negatives
are the recording's other hidden patches. The released code takes the softmax over predictions
(`over="predictions"`) and draws a mask for each term; here one mask and one forward serve both.
With `norm_patches` hidden patches are named and drawn with mean 0 and variance 1 each, so that
level and colour of a recording, which are chance, are not the first things an encoder learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_audio.masks import ClusterMasker
from ssl_audio.objectives import patch_nce
from ssl_core.encoder import Features, Tokens
from ssl_core.methods.base import Loss, Method
from ssl_core.methods.masked import token_widths
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.networks.maskers import make_masker
from ssl_core.objectives import mse, normalise_patches
from ssl_core.views import View, ViewPolicy

Reps = list[tuple[Tensor, Tensor, Tensor]]


class SSAST(Method):
    """A token encoder in replace mode; `mask` "cluster" for patches, "random" for frames."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask: Literal["cluster", "random"] = "cluster",
        mask_ratio: float = 400 / 512,
        sides: Sequence[int] = (3, 4, 5),
        weight: float = 10.0,
        over: Literal["targets", "predictions"] = "targets",
        norm_patches: bool = False,
    ) -> None:
        super().__init__(encoder, views)
        width, token_dim = token_widths(encoder)
        encoder.enable_mask_token()  # type: ignore[operator]
        self.masker = (
            ClusterMasker(mask_ratio, tuple(sides))
            if mask == "cluster"
            else make_masker(mask, mask_ratio, mode="replace")
        )
        self.naming = MLPHead(width, token_dim, hidden=width, norm="none")
        self.drawing = MLPHead(width, token_dim, hidden=width, norm="none")
        self.weight = weight
        self.over = over
        self.norm_patches = norm_patches

    def encode(self, views: Sequence[View]) -> Reps:
        return [self._predict(view) for view in views]

    def _predict(self, view: View) -> tuple[Tensor, Tensor, Tensor]:
        tokens: Tokens = self.encoder.tokenize(view.data)  # type: ignore[operator]
        rows, count = tokens.values.shape[:2]
        mask = self.masker(view.rng, count, grid=tokens.grid)
        with dropout_keys(view.rng):
            features: Features = self.encoder.encode(tokens, mask)  # type: ignore[operator]
        self.monitored = features.pooled.detach()
        assert features.tokens is not None
        hidden = features.tokens[mask.hidden].unflatten(0, (rows, -1))  # [B, n, D]
        target = tokens.values[mask.hidden].unflatten(0, (rows, -1))
        if self.norm_patches:
            target = normalise_patches(target)
        return self.naming(hidden), self.drawing(hidden), target

    def shown(self, views: Sequence[View]) -> dict[str, Tensor]:
        """The first view with hidden patches left out, and with these as drawn."""
        tokens: Tokens = self.encoder.tokenize(views[0].data)  # type: ignore[operator]
        count = tokens.values.shape[1]
        hidden = self.masker(views[0].rng, count, grid=tokens.grid).hidden
        drawn, made = tokens.values.clone(), self._predict(views[0])[1].flatten(0, 1)
        if self.norm_patches:
            std, mean = torch.std_mean(drawn[hidden], -1, keepdim=True)
            made = made * std + mean
        drawn[hidden] = made.to(drawn.dtype)
        without = tokens.values.masked_fill(hidden.unsqueeze(-1), torch.nan)
        assemble = self.encoder.assemble
        return {
            "hidden": assemble(without, tokens.grid),  # type: ignore[operator]
            "drawn": assemble(drawn, tokens.grid),  # type: ignore[operator]
        }

    def loss(self, reps: Reps) -> Loss:
        named = sum(patch_nce(c, x, over=self.over) for c, _, x in reps) / len(reps)
        drawn = sum(mse(r, x) for _, r, x in reps) / len(reps)
        return Loss.of({"naming": named, "drawing": self.weight * drawn})
