"""Where in time a clip lies: starts, strides and frame numbers inside the stored window."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ssl_core.rng import Rng
from ssl_video.files import plan

Gap = Literal["free", "near", "same"]


def span(frames: int, stride: int) -> int:
    """How many stored frames a clip reaches over."""
    return (frames - 1) * stride + 1


def looped(start: Tensor, stride: Tensor, frames: int, total: int) -> Tensor:
    """Frame numbers int64 `[B, frames]` from `start` in steps of `stride` (int64 `[B]`).

    Where the window ends too early the clip begins anew at its first frame, as in Pace (Wang et
    al. 2020); `files.plan.looped` is the same rule for one video.
    """
    k = torch.arange(frames, device=start.device)
    first = torch.div(total - 1 - start, stride, rounding_mode="floor") + 1  # frames until the end
    again = torch.div(total - 1, stride, rounding_mode="floor") + 1
    after = (k - first[:, None]) % again[:, None] * stride[:, None]
    return torch.where(k < first[:, None], start[:, None] + k * stride[:, None], after)


def starts(rng: Rng, views: int, room: int, gap: Gap) -> Tensor:
    """First frames of `views` clips that may start at 0..room: int64 `[B, views]`.

    "free" draws each alone (the rho clips of Feichtenhofer et al. 2021), "same" one for all.
    "near" draws the distance k of two neighbours with density 2/M (1 - k/M), M = `room`, by
    k = M (1 - sqrt(1 - u)), in either order (CVRL, Qian et al. 2021), for two views.
    """
    if gap == "same":
        return rng.integers("clip start", high=room + 1)[:, None].expand(-1, views)
    if gap == "free":
        return rng.integers("clip start", views, high=room + 1)
    if views != 2:
        raise ValueError(f"gap 'near' is between two clips, got {views}; use 'free'")
    u = rng.uniform("clip gap", dtype=torch.float64)
    k = ((room + 1) * (1 - (1 - u).sqrt())).floor().to(torch.int64).clamp(max=room)
    early = rng.integers("clip start", high=room - k + 1)
    swap = rng.bernoulli("clip order", p=0.5)
    pair = torch.stack([early, early + k], dim=1)
    return torch.where(swap[:, None], pair.flip(1), pair)


def spread(
    batch: int, frames: int, stride: int, total: int, device: torch.device, *, clips: int = 1
) -> list[Tensor]:
    """`clips` clips evenly over the window, one in the middle; the same for all: int64
    `[B, frames]` each."""
    room = max(0, total - span(frames, stride))
    step = torch.tensor([stride], device=device)
    return [
        looped(torch.tensor([start], device=device), step, frames, total).expand(batch, frames)
        for start in plan.spread(room, clips)
    ]


def difference(x: Tensor, order: int) -> Tensor:
    """The `order`-th forward difference along time, axis 2 of `[B, C, T, H, W]`; T - order frames.

    V'(n) = V(n+1) - V(n). Signed; constants (and their normalisation's mean) drop out.
    """
    for _ in range(order):
        x = x[:, :, 1:] - x[:, :, :-1]
    return x
