"""What lightly's methods in `learning.py`'s races have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from learning_parts import Backbone, Setup
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn


class Model(nn.Module, ABC):
    """A method: `transform` for one image, `loss` of a batch of views at a share of the run."""

    transform: Callable[[Any], Any]
    collate: Callable[[list[Any]], Any] | None = None
    """How samples become a batch, where a method has a way of its own."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        self.width: int = setup.encoder.embed_dim  # type: ignore[assignment]
        self.backbone = Backbone(setup.encoder)

    @abstractmethod
    def loss(self, views: list[Tensor], share: float) -> Tensor: ...

    def after_backward(self, share: float) -> None:
        """What the example does between `backward` and the optimiser's step."""

    def judged(self) -> nn.Module:
        return self.backbone.encoder


def momentum(setup: Setup, share: float) -> float:
    """A teacher's momentum at a share of the run: cosine to 1, as in the library's examples."""
    steps = setup.recipe.train.steps
    start: float = setup.option("method", "momentum")
    return cosine_schedule(round(share * steps), steps, start, 1)
