"""RotNet (Gidaris et al., ICLR 2018): by how many quarters was the input turned?

    L = -(1/4) sum_k log softmax(W f(turn_k(x)))_k,   k = 0..3 quarters counter-clockwise

All four turns of every sample are in the batch. Turning is exact (no interpolation); a flip must
come before it, or half of the labels 1 and 3 are wrong: it belongs in the views. In clips and
volumes the last two axes turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.methods.pretext import Answers, PretextClassifier
from ssl_core.views import View, ViewPolicy


class Rotation(PretextClassifier):
    """An encoder and one linear layer to four classes."""

    def __init__(self, encoder: nn.Module, views: ViewPolicy) -> None:
        super().__init__(encoder, views)
        self.head = nn.Linear(encoder.embed_dim, 4)  # type: ignore[arg-type]

    def encode(self, views: Sequence[View]) -> Answers:
        return [self._answer(view) for view in views]

    def _answer(self, view: View) -> tuple[Tensor, Tensor]:
        logits = self.head(self.pooled(turned(view.data), view.rng))  # [B, 4, 4]
        labels = torch.arange(4, device=logits.device).expand(len(view), -1)
        return logits, labels


def turned(x: Tensor) -> Tensor:
    """Four turns of `[B, C, ..., S, S]` by quarters counter-clockwise: `[B, 4, C, ..., S, S]`."""
    if x.dim() < 4 or x.shape[-1] != x.shape[-2]:
        raise UserError(
            f"rotation needs square views with two axes at least, got {tuple(x.shape[2:])}"
        )
    return torch.stack([x.rot90(quarters, (-2, -1)) for quarters in range(4)], dim=1)
