"""ViDiDi (2024): temporal derivatives of a clip as further views of its video, in any host method.

    L = L_host(f(D^i V_1), f(D^j V_2)),   V'(n) = V(n+1) - V(n),  V''(n) = V(n+2) - 2 V(n+1) + V(n)

One encoder sees all orders; differences take what stands still out of the picture. Balanced
alternation: step by step the pair (i, j) goes round all pairs whose orders differ by at most one,
so that each order meets itself and its neighbours equally often (the paper's exact cycle is not
public). Derivatives keep their sign; each is brought to a mean square of one, because raw
differences are many times smaller than pixels. With `highest=0` this is the host, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from ssl_core.batch import Batch
from ssl_core.methods import METHODS
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.registry import Registry
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy
from ssl_video.views.temporal import difference

HOSTS = ("simclr", "byol", "barlow_twins", "vicreg")


def schedule(highest: int) -> list[tuple[int, int]]:
    """The cycle of (order of the first view, order of the second)."""
    orders = range(highest + 1)
    return [(i, j) for i in orders for j in orders if abs(i - j) <= 1]


def derivative(x: Tensor, order: int, frames: int) -> Tensor:
    """The first `frames` of the `order`-th difference of `[B, C, T, H, W]`, mean square one."""
    x = difference(x, order)[:, :, :frames]
    if order == 0:
        return x
    scale = x.square().mean((1, 2, 3, 4), keepdim=True).sqrt()
    return x / scale.clamp(min=1e-3)


class ViDiDi(Method):
    """A host method of two views, whose clips come `highest` frames too long (`derivatives`)."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        host: str = "vicreg",
        highest: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(encoder, views)
        if host not in HOSTS:
            raise ValueError(f"host must be one of {', '.join(HOSTS)}, got {host!r}")
        registry = Registry("method", {name: METHODS[name] for name in HOSTS})
        self.host: Method = registry.build(host, encoder, views, options=options)
        self.highest = highest
        self.cycle = schedule(highest)
        self.batch_coupled = self.host.batch_coupled

    @property
    def backbone(self) -> nn.Module:
        return self.host.backbone

    def views(self, batch: Batch, rng: Rng) -> list[View]:
        orders = self.cycle[self.progress[0] % len(self.cycle)]
        made = self.view_policy(batch, rng)
        frames = made[0].data.shape[2] - self.highest
        return [
            replace(view, data=derivative(view.data, order, frames))
            for view, order in zip(made, orders, strict=True)
        ]

    def encode(self, views: Sequence[View]) -> Any:
        reps = self.host.encode(views)
        self.monitored = self.host.monitored
        return reps

    def loss(self, reps: Any) -> Loss:
        return self.host.loss(reps)

    def before_step(self, step: int, total: int) -> None:
        super().before_step(step, total)
        self.host.before_step(step, total)

    def after_step(self, step: Step) -> None:
        self.host.after_step(step)
