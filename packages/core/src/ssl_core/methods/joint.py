"""A method made of weighted methods that share an encoder; most hybrid systems are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ssl_core.batch import Batch
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy


class Joint(Method):
    """L = sum_n weight_n L_n, every member with its own views, heads and update rule.

    Members must hold the very same encoder object. Part names become "member/part".
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        members: Mapping[str, tuple[float, Method]],
    ) -> None:
        super().__init__(encoder, views)
        if not members:
            raise ValueError("a joint method needs at least one member")
        for name, (_, member) in members.items():
            if member.encoder is not encoder:
                raise ValueError(f"joint member {name!r} has another encoder than the joint method")
        self.weights = {name: weight for name, (weight, _) in members.items()}
        self.members = nn.ModuleDict({name: member for name, (_, member) in members.items()})
        self.batch_coupled = any(member.batch_coupled for _, member in members.values())

    def _members(self) -> list[tuple[str, Method]]:
        return [(name, m) for name, m in self.members.items() if isinstance(m, Method)]

    def views(self, batch: Batch, rng: Rng) -> list[View]:
        """All members' views, one after another, each member under keys of its own."""
        return [
            replace(view, owner=(name, *view.owner))
            for name, member in self._members()
            for view in member.views(batch, rng.fold("joint", name))
        ]

    def encode(self, views: Sequence[View]) -> dict[str, Any]:
        return {
            name: member.encode(
                [replace(v, owner=v.owner[1:]) for v in views if v.owner[0] == name]
            )
            for name, member in self._members()
        }

    def loss(self, reps: dict[str, Any]) -> Loss:
        losses = {name: member.loss(reps[name]) for name, member in self._members()}
        weighted = [self.weights[name] * loss.total for name, loss in losses.items()]
        total = torch.stack(weighted).sum()
        parts = {
            f"{name}/{part}": self.weights[name] * value
            for name, loss in losses.items()
            for part, value in loss.parts.items()
        }
        metrics = {
            f"{name}/{metric}": value
            for name, loss in losses.items()
            for metric, value in loss.metrics.items()
        }
        return Loss(total, parts, metrics)

    def before_step(self, step: int, total: int) -> None:
        super().before_step(step, total)
        for _, member in self._members():
            member.before_step(step, total)

    def after_step(self, step: Step) -> None:
        for _, member in self._members():
            member.after_step(step)
