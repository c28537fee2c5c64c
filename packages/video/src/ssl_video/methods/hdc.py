"""HDC (Zhang & Crandall, WACV 2022): space and time contrasted apart, at several depths.

    L = sum_{l, t} w_lt InfoNCE(g_lt(a), g_lt(p_t)),   t in {space, time}, l the stages

The spatial positive shares the anchor's draw in space but not its time and speed: what moves must
be ignored. The temporal positive shares its frames but not its draw in space, and the same frames
reversed or sped up are negatives: appearance cannot tell them apart. The weights follow how
invariant a stage is already: moving averages of its positives' cosine, without gradient, summing to
one over the stages (the paper states the intent; the rule is ours). One stage and equal positives
give twice plain InfoNCE. Views come from the policy `decoupled`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.networks.dropout import dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import info_nce
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy

TASKS = ("space", "time")
_FLOOR = 0.05
"""Smallest similarity a stage counts with: none is ever left out."""


class HDC(Method):
    """An encoder with `stages`, two heads a stage, weights by measured invariance."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        levels: int = 2,
        hidden: int = 256,
        dim: int = 128,
        temperature: float = 0.1,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(encoder, views)
        widths: tuple[int, ...] = getattr(encoder, "levels", ())  # type: ignore[assignment]
        if not hasattr(encoder, "stages") or not 1 <= levels <= len(widths):
            raise UserError(
                f"hdc: levels={levels} of an encoder with {len(widths)} stages; choose a residual "
                "network (resnet3d_nano, r3d_18, r2plus1d_18) and as many levels as it has, or less"
            )
        self.levels = range(len(widths) - levels, len(widths))
        self.heads = nn.ModuleList(
            nn.ModuleList(MLPHead(widths[level], dim, hidden=hidden) for _ in TASKS)
            for level in self.levels
        )
        self.temperature = temperature
        self.momentum = momentum
        self.register_buffer("similarity", torch.ones(levels, len(TASKS)))
        self._measured: Tensor | None = None

    similarity: Tensor

    @property
    def weights(self) -> Tensor:
        """w `[levels, tasks]`, columns summing to one."""
        level = self.similarity.clamp(min=_FLOOR)
        return level / level.sum(0)

    def encode(self, views: Sequence[View]) -> list[list[list[Tensor]]]:
        """Per level and task: (anchor, positive[, altered]), each `[B, dim]`."""
        sizes = [len(view) for view in views]
        with dropout_keys(Rng.cat([view.rng for view in views])):
            maps = self.encoder.stages(torch.cat([view.data for view in views]))  # type: ignore[operator]
        self.monitored = maps[-1].mean((2, 3, 4)).detach()
        reps = []
        for level, heads in zip(self.levels, self.heads, strict=True):
            pooled = maps[level].mean((2, 3, 4)).split(sizes)
            spatial, temporal = [pooled[0], pooled[1]], [pooled[0], pooled[2], pooled[3]]
            reps.append([self._headed(heads[0], spatial), self._headed(heads[1], temporal)])  # type: ignore[index]
        return reps

    @staticmethod
    def _headed(head: nn.Module, pooled: list[Tensor]) -> list[Tensor]:
        return list(head(torch.cat(pooled)).split([len(x) for x in pooled]))

    def loss(self, reps: list[list[list[Tensor]]]) -> Loss:
        weights = self.weights
        losses = torch.stack([torch.stack([self._contrast(*task) for task in row]) for row in reps])
        near = [[F.cosine_similarity(*task[:2]).mean() for task in row] for row in reps]
        self._measured = torch.stack([torch.stack(row) for row in near]).detach()
        parts = (weights * losses).sum(0)
        return Loss.of(
            dict(zip(TASKS, parts, strict=True)),
            {f"similarity/{t}": self._measured[:, n].mean() for n, t in enumerate(TASKS)},
        )

    def _contrast(self, anchor: Tensor, positive: Tensor, altered: Tensor | None = None) -> Tensor:
        return info_nce(
            anchor,
            positive,
            temperature=self.temperature,
            symmetric=False,
            hard=None if altered is None else altered.unsqueeze(1),
        )

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        if self._measured is None:
            return
        moved = self.similarity.lerp(self._measured, 1 - self.momentum)
        self.similarity.copy_(torch.where(step.finite, moved, self.similarity))
