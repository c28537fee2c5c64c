"""SparK (Tian et al., ICLR 2023): masked modelling for convolutional networks.

    L = sum_i m_i mean_j (y_ij - t_ij)^2 / sum_i m_i,   t = (unit - mean) / sqrt(var + 1e-6)

over the hidden units, squares as wide as the network's total stride. The network runs sparsely,
its maps at every stride are filled with learned vectors, and a light U-Net rebuilds the input.
The nearest number of units to N (1 - ratio) stays visible. Clips and volumes use the same code;
the released denominators' + 1e-8 is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.encoder import Features
from ssl_core.methods.base import Loss, Method
from ssl_core.methods.masked import Prediction
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.masks import Mask, RandomMasker
from ssl_core.networks.patch_embed import patch_grid, patchify, unpatchify
from ssl_core.networks.pyramid import PyramidDecoder, map_widths
from ssl_core.networks.sparse import sparse_pass, visible_at
from ssl_core.objectives import masked_pixels, normalise_patches
from ssl_core.views import View, ViewPolicy


class SparK(Method):
    """Any convolutional encoder on 1, 2 or 3 axes, and a decoder `decoder_dim` wide at its end."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        mask_ratio: float = 0.6,
        decoder_dim: int = 768,
        norm_pixels: bool = True,
    ) -> None:
        super().__init__(encoder, views)
        channels, axes, widths = map_widths(encoder)
        self.unit = (max(widths),) * axes
        self.norm_pixels = norm_pixels
        self.masker = RandomMasker(mask_ratio, mode="replace", count_rule="keep_round")
        self.decoder = PyramidDecoder(widths, channels, dim=decoder_dim, axes=axes)

    def encode(self, views: Sequence[View]) -> list[Prediction]:
        return [self._predict(view) for view in views]

    def _predict(self, view: View) -> Prediction:
        data: Tensor = view.data
        units = patch_grid(tuple(data.shape[2:]), self.unit)
        mask: Mask = self.masker(view.rng, math.prod(units), grid=units)
        visible = ~mask.hidden.reshape(-1, 1, *units)
        shown = torch.where(_at(visible, data.shape[2:]), data, 0.0)
        with dropout_keys(view.rng), sparse_pass(self.encoder, visible) as maps:
            features: Features = self.encoder(shown)
        self.monitored = features.pooled.detach()
        sides = [tuple(s // stride for s in data.shape[2:]) for stride in self.decoder.strides]
        rebuilt = self.decoder([maps[size] for size in sides], [_at(visible, s) for s in sides])
        target = patchify(data, self.unit)
        if self.norm_pixels:
            target = normalise_patches(target)
        # Layers behind the last map get a zero gradient: replicas expect one from every parameter.
        predicted = patchify(rebuilt, self.unit) + 0 * features.pooled.sum()
        return Prediction(predicted, target, mask, None, features.pooled)

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """The first view with its hidden units left out, and with these as predicted."""
        data: Tensor = views[0].data
        rep = self._predict(views[0])
        content = patchify(data, self.unit)
        std, mean = torch.std_mean(content, -1, keepdim=True)
        predicted = rep.predicted * std + mean if self.norm_pixels else rep.predicted
        hidden = rep.mask.hidden.unsqueeze(-1)
        filled = torch.where(hidden, predicted.to(content.dtype), content)
        pictures = {"hidden": content.masked_fill(hidden, torch.nan), "predicted": filled}
        return {k: unpatchify(x, self.unit, rep.mask.grid) for k, x in pictures.items()}

    def loss(self, reps: list[Prediction]) -> Loss:
        losses = [masked_pixels(rep.predicted, rep.target, rep.mask) for rep in reps]
        return Loss.of({"reconstruction": torch.stack(losses).mean()})


def _at(visible: Tensor, sides: Sequence[int]) -> Tensor:
    mask = visible_at(visible, tuple(sides))
    assert mask is not None, "the units are the coarsest map"
    return mask
