"""Continued pretraining that cannot quietly spoil good weights: frozen warm-up and anchor.

The anchor is L2-SP (Li et al. 2018, "Explicit inductive bias for transfer learning"): a penalty
weight / 2 * |w - w0|^2 on the encoder's parameters, whose gradient is added before clipping.
"""

from __future__ import annotations

from torch import Tensor, nn

from ssl_core.recipe import Start


class Anchor:
    """Holds an encoder still for the first steps, and near its start afterwards.

    Made after the network is on its device and before a checkpoint is loaded: what the encoder
    holds then is its start. While it is frozen its parameters get no gradient, so that optimisers
    pass over them, decay and moments included, and it runs in evaluation mode.
    """

    def __init__(self, encoder: nn.Module, settings: Start) -> None:
        self.encoder, self.settings = encoder, settings
        self.parameters = [p for p in encoder.parameters() if p.requires_grad]
        held = self.parameters if settings.anchor else []
        self.start: list[Tensor] = [p.detach().clone() for p in held]

    def frozen(self, step: int, total: int) -> bool:
        """Whether the encoder stands still at this step."""
        return step < round(self.settings.frozen * total)

    def before(self, step: int, total: int) -> None:
        """Puts the encoder into the mode of this step."""
        frozen = self.frozen(step, total)
        if self.settings.frozen and self.encoder.training == frozen:
            self.encoder.train(not frozen)

    def apply(self, step: int, total: int) -> None:
        """Changes the gradients of a finished backward pass."""
        if self.frozen(step, total):
            for p in self.parameters:
                p.grad = None
            return
        if self.start:
            for p, first in zip(self.parameters, self.start, strict=True):
                if p.grad is not None:
                    p.grad.add_(p.detach() - first, alpha=self.settings.anchor)
