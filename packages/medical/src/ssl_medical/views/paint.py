"""Corruptions that a restoring network undoes: local shuffling, painted boxes, cut-outs.

On two or three axes, batched and keyed. Boxes are `(corner, size)`, int64 `[B, K, n]` each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_core.rng import Rng

_CHUNK = 256


def inside(corner: Tensor, size: Tensor, sides: Sequence[int]) -> Tensor:
    """Which voxels lie in each box: bool `[B, K, *sides]`."""
    out = torch.ones(*corner.shape[:2], *[1] * len(sides), dtype=torch.bool, device=corner.device)
    for axis, side in enumerate(sides):
        at = torch.arange(side, device=corner.device)
        first, last = corner[..., axis, None], (corner + size)[..., axis, None]
        row = (at >= first) & (at < last)  # [B, K, side]
        out = out & row.view(*row.shape[:2], *[-1 if a == axis else 1 for a in range(len(sides))])
    return out


def in_painting(rng: Rng, sides: Sequence[int], *, boxes: int = 5, margin: int = 3) -> Tensor:
    """Where Models Genesis paints holes, bool `[B, 1, *sides]`.

    Up to `boxes` boxes of a sixth to a third of each side, `margin` voxels from the border; each
    comes with probability 0.95 after the one before.
    """
    low, high = [s // 6 for s in sides], [s // 3 for s in sides]
    shown = _continued(rng, boxes, first=False)
    return _painted(rng, sides, low, high, shown, margin)


def out_painting(rng: Rng, sides: Sequence[int], *, boxes: int = 5, margin: int = 3) -> Tensor:
    """Where Models Genesis paints around what it keeps, bool `[B, 1, *sides]`.

    Kept are one to `boxes` boxes of 3/7 to 4/7 of each side.
    """
    low, high = [s - 4 * s // 7 for s in sides], [s - 3 * s // 7 for s in sides]
    return ~_painted(rng, sides, low, high, _continued(rng, boxes, first=True), margin)


def _continued(rng: Rng, boxes: int, *, first: bool) -> Tensor:
    """Which of the boxes are painted, bool `[B, boxes]`: a run of ones, then zeros."""
    more = rng.bernoulli("more boxes", boxes, p=0.95)
    if first:
        more = torch.cat([torch.ones_like(more[:, :1]), more[:, 1:]], dim=1)
    return more.cumprod(1).bool()


def _painted(
    rng: Rng,
    sides: Sequence[int],
    low: Sequence[int],
    high: Sequence[int],
    shown: Tensor,
    margin: int,
) -> Tensor:
    count, axes = shown.shape[1], len(sides)
    bounds = [torch.tensor(x, device=rng.device) for x in (low, high, sides)]
    size = rng.integers("box size", count, axes, low=bounds[0], high=bounds[1] + 1).clamp(min=1)
    edge = min(margin, (min(s - h for s, h in zip(sides, high, strict=True))) // 2)
    room = bounds[2] - size - 2 * edge
    corner = edge + rng.integers("box corner", count, axes, high=room.clamp(min=0) + 1)
    boxes = inside(corner, size, sides) & shown.view(*shown.shape, *[1] * axes)
    return boxes.any(1, keepdim=True)


def cut_out(
    rng: Rng,
    sides: Sequence[int],
    *,
    share: float = 0.3,
    block: tuple[float, float] = (0.05, 0.25),
) -> Tensor:
    """Where Swin UNETR's pretext drops the input, bool `[B, 1, *sides]`.

    Boxes of `block` of each side are added until their volumes, overlaps counted twice, exceed
    `share` of the input; it is overshot by one box at most.
    """
    axes = len(sides)
    mean = ((block[0] + block[1]) / 2) ** axes
    count = min(256, math.ceil(4 * share / mean) + 1)
    whole = torch.tensor(sides, device=rng.device)
    low = (block[0] * whole).long().clamp(min=1)
    high = torch.maximum((block[1] * whole).long(), low)
    size = rng.integers("cut size", count, axes, low=low, high=high + 1)
    corner = rng.integers("cut corner", count, axes, high=whole - size + 1)
    volume = size.prod(2)
    used = volume.cumsum(1) - volume < share * math.prod(sides)
    boxes = inside(corner, size, sides) & used.view(*used.shape, *[1] * axes)
    return boxes.any(1, keepdim=True)


def noise_like(x: Tensor, rng: Rng) -> Tensor:
    """Uniform noise in [0, 1) of the shape of `x`."""
    return rng.uniform("paint", x[0].numel()).view_as(x).to(x.dtype)


def shuffled_windows(x: Tensor, rng: Rng, *, windows: int) -> Tensor:
    """Models Genesis' local shuffling: the voxels of many small windows change places.

    Window sides are 1 to a tenth of the input's. Every window permutes the *original* voxels it
    covers, all channels alike; where windows overlap the later one stands.
    """
    count, channels, *sides = x.shape
    flat = x.flatten(2)
    out = torch.cat([flat, flat[:, :, :1]], dim=2)  # one more place, for what is not written
    for number, start in enumerate(range(0, windows, _CHUNK)):
        size = min(_CHUNK, windows - start)
        source, target = _windows(rng.fold("shuffle", number), sides, size)
        values = flat.gather(2, source.unsqueeze(1).expand(-1, channels, -1))
        out = out.scatter(2, target.unsqueeze(1).expand(-1, channels, -1), values)
    return out[:, :, :-1].view(count, channels, *sides)


def _windows(rng: Rng, sides: Sequence[int], windows: int) -> tuple[Tensor, Tensor]:
    """For each cell of each window its source and target, flat int64 `[B, windows * cells]`.

    Targets that a later window covers, and cells outside a window, point one past the last voxel.
    """
    axes, whole = len(sides), torch.tensor(sides, device=rng.device)
    most = [max(1, side // 10) for side in sides]
    size = rng.integers("size", windows, axes, high=torch.tensor(most, device=rng.device)) + 1
    corner = rng.integers("corner", windows, axes, high=whole - size + 1)
    ranges = [torch.arange(m, device=rng.device) for m in most]
    cells = torch.stack(torch.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, axes)  # [m, n]
    real = (cells < size[:, :, None]).all(-1)  # [B, W, m]
    # Both orders put the window's own cells first, one as they stand, one at random.
    stand = (~real).to(torch.int64).argsort(dim=2, stable=True)
    drawn = rng.uniform("order", windows, len(cells)) + (~real)
    mixed = drawn.argsort(dim=2, stable=True)
    step = torch.tensor([math.prod(sides[a + 1 :]) for a in range(axes)], device=rng.device)
    place = ((corner[:, :, None] + cells) * step).sum(-1)  # [B, W, m]
    target, source = place.gather(2, stand).flatten(1), place.gather(2, mixed).flatten(1)
    real = real.gather(2, stand).flatten(1)
    voxels = math.prod(sides)
    target, source = torch.where(real, target, voxels), torch.where(real, source, 0)
    order = torch.arange(windows, device=rng.device).repeat_interleave(len(cells))
    order = order.expand_as(target)
    last = torch.full((len(rng), voxels + 1), -1, device=rng.device)
    last = last.scatter_reduce(1, target, order, "amax")
    return source, torch.where(last.gather(1, target) == order, target, voxels)
