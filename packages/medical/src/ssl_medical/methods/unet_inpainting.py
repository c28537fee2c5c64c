"""Inpainting U-Net (Bhattacharya et al., SPIE 2021): fill what was dropped out of an image.

    L = mean (f(dropped(x)) - x)^2   over all pixels

Blocks of pixels are dropped by the views (`dropped`); every weight but the last layer's goes on to
segmentation. The paper does not say which distance it takes; `distance="l1"` is the other usual
one. `hidden` among the metrics is the squared error where pixels were dropped, in variances of the
data: filling with the mean colour scores about 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss
from ssl_core.objectives import masked_mean
from ssl_core.views import View, ViewPolicy
from ssl_medical.methods.models_genesis import ModelsGenesis

Rep = tuple[Tensor, Tensor, Tensor]


class UNetInpainting(ModelsGenesis):
    """A U-Net (or any encoder with a decoder `dim` wide at the end) and one layer to pixels."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        dim: int = 16,
        distance: Literal["l2", "l1"] = "l2",
    ) -> None:
        super().__init__(encoder, views, dim=dim)
        if distance not in ("l2", "l1"):
            raise ValueError(f"distance must be l2 or l1, got {distance!r}")
        self.distance = distance

    def encode(self, views: Sequence[View]) -> list[Rep]:  # type: ignore[override]
        return [(*self.restored(view), view.params["hidden"]) for view in views]

    def loss(self, reps: list[Rep]) -> Loss:  # type: ignore[override]
        losses, errors = [], []
        for made, real, hidden in reps:
            apart = made.float() - real.float()
            losses.append((apart.abs() if self.distance == "l1" else apart.square()).mean())
            errors.append(masked_mean(apart.detach().square(), hidden.expand_as(apart)))
        hidden_error = torch.stack(errors).mean()
        return Loss.of({"inpainting": torch.stack(losses).mean()}, {"hidden": hidden_error})
