"""The contract of a method: views, representations, loss, and what follows a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.batch import Batch
from ssl_core.encoder import Features
from ssl_core.networks.dropout import dropout_keys
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy


@dataclass
class Loss:
    """`total` to minimise, the named `parts` that sum to it, and `metrics` that do not."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: dict[str, Tensor], metrics: dict[str, Tensor] | None = None) -> Loss:
        """A loss from its parts, already weighted."""
        values = list(parts.values())
        detached = {name: part.detach() for name, part in parts.items()}
        return cls(sum(values[1:], start=values[0]), detached, metrics or {})


@dataclass(frozen=True)
class Step:
    """The step just taken: `index` of `total`; `finite` is a 0-dim bool tensor on the device.

    A step with a non-finite gradient left the parameters untouched; teachers, queues and centres
    must stay untouched too, without asking the device: blend with `finite`.
    """

    index: int
    total: int
    finite: Tensor


class Method(nn.Module, ABC):
    """A self-supervised method: networks, views, objective, update rule.

    A subclass is final and reads like its paper. It never touches files, devices, ranks, loggers
    or precision. `encode` is per-sample work and may be chunked; `loss` may couple the batch and
    gather across replicas. Global random state is never used: draw from `View.rng`.
    """

    batch_coupled: bool = True
    """False where the loss is a mean over samples, so that micro-batches simply accumulate."""

    def __init__(self, encoder: nn.Module, views: ViewPolicy) -> None:
        super().__init__()
        self.encoder = encoder
        self.view_policy = views
        self.progress = (0, 1)
        self.monitored: Tensor | None = None
        """Pooled features `[b, D]` of the newest forward, for representation health."""
        self.monitored_pair: tuple[Tensor, Tensor] | None = None
        """Those of two views of the same samples, row by row."""

    @property
    def backbone(self) -> nn.Module:
        """The network people use afterwards (a teacher's encoder, where that is better)."""
        return self.encoder

    def views(self, batch: Batch, rng: Rng) -> list[View]:
        """The views of one step, made on the batch's device."""
        return self.view_policy(batch, rng)

    @abstractmethod
    def encode(self, views: Sequence[View]) -> Any:
        """Representations, each with the samples as its leading dimension."""

    @abstractmethod
    def loss(self, reps: Any) -> Loss:
        """The objective of the local rows, given representations."""

    def forward(self, views: Sequence[View]) -> Loss:
        return self.loss(self.encode(views))

    def before_step(self, step: int, total: int) -> None:
        """Called before every step; schedules inside a method read `self.progress`."""
        self.progress = (step, total)

    def after_step(self, step: Step) -> None:
        """Called after the optimiser's step: teachers, queues, centres."""

    def shown(self, views: Sequence[View]) -> dict[str, Any]:
        """More than views to draw in the report: caption -> data like a view's, NaN where hidden.

        Called without gradient, in evaluation mode.
        """
        return {}

    def features(
        self, views: Sequence[View], encoder: nn.Module | None = None, *, joint: bool = True
    ) -> list[Features]:
        """The encoder on each view, in order.

        With `joint`, views of one shape go through in one forward, which is faster and lets batch
        norm see them together (SimCLR, DINO); without, each view has its own statistics (BYOL,
        Barlow Twins, VICReg).
        """
        encoder = self.encoder if encoder is None else encoder
        groups: dict[Any, list[int]] = {}
        for i, view in enumerate(views):
            shape = tuple(view.data.shape[1:]) if isinstance(view.data, Tensor) else i
            groups.setdefault(shape if joint else i, []).append(i)
        out: list[Features | None] = [None] * len(views)
        for members in groups.values():
            data, rng = _joined([views[i] for i in members])
            with dropout_keys(rng):
                whole: Features = encoder(data)
            self.monitored = whole.pooled.detach()
            for i, part in zip(
                members, _split(whole, [len(views[i]) for i in members]), strict=True
            ):
                out[i] = part
        found = [features for features in out if features is not None]
        if len(found) > 1 and found[0].pooled.shape == found[1].pooled.shape:
            self.monitored_pair = found[0].pooled.detach(), found[1].pooled.detach()
        return found


def _joined(views: Sequence[View]) -> tuple[Any, Rng]:
    if len(views) == 1:
        return views[0].data, views[0].rng
    return torch.cat([view.data for view in views]), Rng.cat([view.rng for view in views])


def _split(features: Features, sizes: list[int]) -> list[Features]:
    if len(sizes) == 1:
        return [features]
    pooled = features.pooled.split(sizes)
    tokens = [None] * len(sizes) if features.tokens is None else features.tokens.split(sizes)
    valid = [None] * len(sizes) if features.valid is None else features.valid.split(sizes)
    return [Features(p, t, features.grid, v) for p, t, v in zip(pooled, tokens, valid, strict=True)]
