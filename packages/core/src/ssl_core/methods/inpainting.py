"""Context encoders (Pathak et al., CVPR 2016): fill the hole from what surrounds it.

    L = (1 - w) mean(weight (y - x)^2) + adversarial,   weight = 10 in the border, 1 inside it
    adversarial = mean(-log D(x) - log(1 - D(y))) / 2

over a hole of `hole` cells a side, of which all but a border of `overlap` is shown as zero, the
mean. The decoder gets the pooled representation alone. The adversarial gradient reaches the
decoder reversed and times w, so that one optimiser trains both sides of the game (the released
code has two, and gives the decoder ten times the rate).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.holes import (
    Discriminator,
    HoleDecoder,
    at_boxes,
    inside_boxes,
    reverse_gradient,
)
from ssl_core.objectives import bce, masked_mean
from ssl_core.views import View, ViewPolicy

Pair = tuple[Tensor, Tensor]


class Inpainting(Method):
    """Any encoder on `axes` axes; `hole` is 4, 8, 16... input cells a side; w is `adversarial`."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hole: int = 64,
        overlap: int = 4,
        place: Literal["centre", "random"] = "centre",
        channels: int = 3,
        axes: int = 2,
        decoder_dim: int = 512,
        border_weight: float = 10.0,
        adversarial: float = 0.001,
    ) -> None:
        super().__init__(encoder, views)
        if not 0 <= adversarial < 1 or not 0 <= 2 * overlap < hole:
            raise ValueError(
                f"need 0 <= adversarial < 1 and 2 overlap < hole, got adversarial={adversarial}, "
                f"overlap={overlap}, hole={hole}"
            )
        if place not in ("centre", "random"):
            raise ValueError(f"place must be centre or random, got {place!r}")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        sizes = {"size": hole, "dim": decoder_dim, "axes": axes}
        self.decoder = HoleDecoder(width, channels, **sizes)
        self.judge = Discriminator(channels, **sizes) if adversarial else None
        self.hole, self.overlap, self.axes, self.place = hole, overlap, axes, place
        self.border_weight, self.adversarial = border_weight, adversarial

    def encode(self, views: Sequence[View]) -> list[Pair]:
        return [self._fill(view) for view in views]

    def _fill(self, view: View) -> Pair:
        data: Tensor = view.data
        start = self._start(view)
        shown = [first + self.overlap for first in start]
        hidden = inside_boxes(shown, self.hole - 2 * self.overlap, data.shape[2:]).unsqueeze(1)
        with dropout_keys(view.rng):
            features = self.encoder(torch.where(hidden, 0.0, data))
        self.monitored = features.pooled.detach()
        return self.decoder(features.pooled), at_boxes(data, start, self.hole)

    def _start(self, view: View) -> list[Tensor]:
        """Where the hole begins along each axis, int64 `[B]` each."""
        sides = tuple(view.data.shape[2:])
        if len(sides) != self.axes or min(sides) <= self.hole:
            raise UserError(
                f"a hole of {self.hole} on {self.axes} axes does not fit into views of "
                f"{'x'.join(map(str, sides))}; set hole and axes"
            )
        if self.place == "random":
            rng = view.rng.fold("hole")
            return [rng.integers(axis, high=s - self.hole + 1) for axis, s in enumerate(sides)]
        return [torch.full_like(view.rng.key, (side - self.hole) // 2) for side in sides]

    def loss(self, reps: list[Pair]) -> Loss:
        made, real = (torch.cat(parts) for parts in zip(*reps, strict=True))
        error = (made.to(real.dtype) - real).square() * self._weights(real)
        everywhere = torch.ones_like(error, dtype=torch.bool)
        parts = {"pixels": (1 - self.adversarial) * masked_mean(error, everywhere)}
        if self.judge is not None:
            fake = self.judge(reverse_gradient(made, self.adversarial))
            parts["adversarial"] = bce(self.judge(real), fake)
        return Loss.of(parts)

    def _weights(self, like: Tensor) -> Tensor:
        """`[hole, ...]`: `border_weight` in the border that the encoder sees, 1 inside it."""
        start = [torch.full((1,), self.overlap, device=like.device)] * self.axes
        inner = inside_boxes(start, self.hole - 2 * self.overlap, [self.hole] * self.axes)[0]
        return torch.where(inner, 1.0, self.border_weight).to(like.dtype)
