"""Pace (Wang, Jiao & Liu, ECCV 2020): tell from a clip how fast it is played.

    L = CE(W f(x_s), s - 1),   s the stride the clip was taken with, 1 to `paces`

Chance is log `paces`; a still video cannot beat it. The policy `pace` draws the stride and colours
every frame alone, so that colour does not tell neighbouring frames. The paper's optional
contrastive term is SimCLR, joined with this method.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.objectives.pretext import accuracy, pretext_cross_entropy
from ssl_core.views import View, ViewPolicy


class Pace(Method):
    """Encoder and one linear layer over the paces."""

    batch_coupled = False

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, paces: int = 4) -> None:
        super().__init__(encoder, views)
        self.head = nn.Linear(encoder.embed_dim, paces)  # type: ignore[arg-type]

    def encode(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        (view,) = views
        if "pace" not in view.params:
            raise ValueError("pace: needs the view policy `pace`, whose views know their stride")
        (features,) = self.features(views)
        return self.head(features.pooled), view.params["pace"]

    def loss(self, reps: tuple[Tensor, Tensor]) -> Loss:
        logits, label = reps
        return Loss.of(
            {"pace": pretext_cross_entropy(logits, label)}, {"accuracy": accuracy(logits, label)}
        )
