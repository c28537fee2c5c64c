"""APC (Chung et al., Interspeech 2019): a causal encoder predicts the frame `ahead` frames on.

    L = mean over t and bins of |x_{t + n} - W h_t|

n = 0 could be solved by copying; a constant recording costs 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method
from ssl_core.objectives.precision import full_precision
from ssl_core.views import View, ViewPolicy


@full_precision
def shifted_l1(predicted: Tensor, frames: Tensor, *, ahead: int) -> Tensor:
    """|x_{t+n} - y_t|, mean over everything; both `[B, T, F]`, the last n predictions unused."""
    count = frames.shape[1] - ahead
    return (predicted[:, :count] - frames[:, ahead:].detach()).abs().mean()


class APC(Method):
    """A causal encoder of spectrogram frames and a linear layer."""

    batch_coupled = False

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, ahead: int = 5) -> None:
        super().__init__(encoder, views)
        first = next(encoder.parameters())
        if not getattr(encoder, "causal", False) or hasattr(encoder, "local_dim"):
            raise UserError(
                f"encoder: APC needs one that sees only the past of spectrogram frames, got "
                f"{type(encoder).__name__}; choose gru_nano or gru_base"
            )
        if ahead < 1:
            raise ValueError(f"ahead must be at least 1 frame, got {ahead}")
        self.ahead = ahead
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.head = nn.Linear(width, first.shape[1])

    def encode(self, views: Sequence[View]) -> list[tuple[Tensor, Tensor]]:
        features = self.features(views)
        frames = [view.data[:, 0].transpose(1, 2) for view in views]
        return [(self.head(f.tokens), x) for f, x in zip(features, frames, strict=True)]

    def loss(self, reps: list[tuple[Tensor, Tensor]]) -> Loss:
        losses = [shifted_l1(y, x, ahead=self.ahead) for y, x in reps]
        return Loss.of({"prediction": torch.stack(losses).mean()})
