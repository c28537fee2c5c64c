"""Models Genesis (Zhou et al., MedIA 2021): undo what was done to a block.

    L = mean (f(corrupt(x)) - x)^2   over all voxels

The corruptions are the views' (`restore`): local shuffling 0.5, a Bezier curve 0.9, in- or
out-painting 0.9. Intensities are on the scale of the data's mean and std, where the paper has 0..1:
the loss is the paper's divided by the variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.objectives import mse
from ssl_core.views import View, ViewPolicy
from ssl_medical.encoders.resnet_nano import CONV
from ssl_medical.encoders.unet_nano import DenseHead, axes_of

Pair = tuple[Tensor, Tensor]


class ModelsGenesis(Method):
    """A U-Net (or any encoder with a decoder `dim` wide at the end) and one layer to voxels."""

    batch_coupled = False

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, dim: int = 16) -> None:
        super().__init__(encoder, views)
        channels = int(views.spec["channels"])  # type: ignore[attr-defined]
        self.head = DenseHead(encoder, dim=dim)
        self.out = CONV[axes_of(encoder)](self.head.dense_dim, channels, 1)

    def encode(self, views: Sequence[View]) -> list[Pair]:
        return [self.restored(view) for view in views]

    def restored(self, view: View) -> Pair:
        """What the network makes of a view, and what it should."""
        with dropout_keys(view.rng):
            features, dense = self.head(self.encoder, view.data)
        self.monitored = features.pooled.detach()
        return self.out(dense), view.params["target"]

    def loss(self, reps: list[Pair]) -> Loss:
        return Loss.of({"restoration": torch.stack([mse(*pair) for pair in reps]).mean()})
