"""Colourful image colourisation (Zhang et al., ECCV 2016): predict colour from lightness.

    L = -mean over cells of v(t) sum_q t_q log softmax(W f(L))_q,   v(t) = sum_q t_q w_q
    w_q ~ 1 / ((1 - rebalance) p_q + rebalance / Q),   sum_q p_q w_q = 1

The encoder sees lightness in all channels; each of its tokens predicts the mean colour (a, b) of
its cell, as a distribution over the 261 bins of side 10 that hold an sRGB colour (the paper counts
313): the target is a Gaussian of deviation 5 on the 5 nearest bins. p is measured while training,
as a moving average of the targets, where the paper counts ImageNet beforehand and smooths it with
the same Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import all_mean
from ssl_core.encoder import Features
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.dropout import dropout_keys
from ssl_core.objectives import pretext_cross_entropy
from ssl_core.views import View, ViewPolicy
from ssl_vision.lab import colour_bins, rgb_to_lab

Answer = tuple[Tensor, Tensor]


class Colourisation(Method):
    """An encoder with tokens on a grid, and one linear layer to the bins of colour."""

    batch_coupled = False
    bins: Tensor
    shares: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        step: int = 10,
        neighbours: int = 5,
        deviation: float = 5.0,
        rebalance: float = 0.5,
        momentum: float = 0.99,
    ) -> None:
        super().__init__(encoder, views)
        spec = getattr(views, "spec", {})
        if len(spec.get("mean", ())) != 3:
            raise UserError("data: colourisation needs images in red, green and blue")
        if not 0 < rebalance <= 1:
            raise ValueError(f"rebalance must lie in (0, 1], got {rebalance}")
        self.mean, self.std = tuple(spec["mean"]), tuple(spec["std"])
        bins = torch.tensor(colour_bins(step), dtype=torch.float32)
        self.register_buffer("bins", bins)  # [Q, 2]
        self.register_buffer("shares", torch.full((len(bins),), 1 / len(bins)))
        self.head = nn.Linear(encoder.embed_dim, len(bins))  # type: ignore[arg-type]
        self.neighbours, self.deviation = neighbours, deviation
        self.rebalance, self.momentum = rebalance, momentum
        self._seen = self.shares.clone()

    def encode(self, views: Sequence[View]) -> list[Answer]:
        return [self._answer(view) for view in views]

    def _answer(self, view: View) -> Answer:
        mean, std = (view.data.new_tensor(x).view(1, 3, 1, 1) for x in (self.mean, self.std))
        lab = rgb_to_lab((view.data * std + mean).clamp(0, 1))
        with dropout_keys(view.rng):
            features: Features = self.encoder((lab[:, :1] / 100 - mean) / std)
        if features.tokens is None or len(features.grid) != 2:
            raise UserError(
                f"encoder: colourisation needs tokens on a grid, {type(self.encoder).__name__} "
                "has none"
            )
        self.monitored = features.pooled.detach()
        colours = F.adaptive_avg_pool2d(lab[:, 1:], features.grid)
        return self.head(features.tokens), self.targets(colours.flatten(2).transpose(1, 2))

    def targets(self, colours: Tensor) -> Tensor:
        """Colours `[..., 2]` as distributions over bins `[..., Q]`."""
        distance = torch.cdist(colours.reshape(-1, 2), self.bins)
        near, index = distance.topk(self.neighbours, largest=False)
        weight = (-near.square() / (2 * self.deviation**2)).softmax(-1)
        flat = torch.zeros_like(distance).scatter_(1, index, weight)
        return flat.unflatten(0, colours.shape[:-1])

    def loss(self, reps: list[Answer]) -> Loss:
        weights = 1 / ((1 - self.rebalance) * self.shares + self.rebalance / len(self.shares))
        weights = weights / (self.shares * weights).sum()
        losses = [pretext_cross_entropy(*rep, class_weights=weights) for rep in reps]
        self._seen = torch.stack([rep[1].mean((0, 1)) for rep in reps]).mean(0)
        return Loss.of({"colour": torch.stack(losses).mean()})

    def after_step(self, step: Step) -> None:
        moved = torch.lerp(all_mean(self._seen).to(self.shares), self.shares, self.momentum)
        self.shares.copy_(torch.where(step.finite, moved, self.shares))
