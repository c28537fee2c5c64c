"""View policies by name: which blocks of a scan a method compares.

All take the data's spec and keyword options; `size` None follows the data's block. `scale` is the
share of the block's sides a view covers, `elastic` how far a coarse grid over it may bend (in its
cells, 0.4 at most); other options are those of `Intensity`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.registry import check_options
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_medical.blocks import Blocks
from ssl_medical.prepare import SCALE
from ssl_medical.views.intensity import NEUTRAL, Intensity
from ssl_medical.views.space import Placement, RandomPlacement, sampled

Spec = Mapping[str, Any]
Range = Sequence[float]
_AT_ONCE = 2**20
"""Voxels that a CPU works on at a time."""


@dataclass(frozen=True)
class Frame:
    """What all views of a data set share: its facts, and the `sides` of the views, in voxels."""

    spec: Spec
    sides: tuple[int, ...]
    block: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", tuple(self.spec["block"][: int(self.spec["axes"])]))

    def stored(self, data: Blocks) -> Tensor:
        """Voxels as they are stored, int16 `[B, C, *block]`, without the third axis of slices."""
        return data.data if len(self.sides) == 3 else data.data[..., 0]

    def unit(self, data: Blocks) -> Tensor:
        """Intensities in 0..1, float32 `[B, C, *block]`."""
        return self.stored(data).to(torch.float32, copy=True).mul_(1 / SCALE)

    def seen(self, data: Blocks, place: Placement) -> Tensor:
        """Intensities in 0..1 where views lie, float32 `[B, C, *sides]`; zero outside the block."""
        return sampled(self.stored(data), place, self.sides).mul_(1 / SCALE)

    def normalised(self, x: Tensor) -> Tensor:
        """(x - mean) / std of the data."""
        shape = (-1, *[1] * len(self.sides))
        mean, std = (x.new_tensor(self.spec[name]).view(shape) for name in ("mean", "std"))
        return (x - mean).div_(std)

    def middle(self, batch: Batch) -> Placement:
        """The whole block, scaled to `sides`: the plain view."""
        count, axes = len(batch), len(self.sides)
        whole = torch.tensor([float(b) for b in self.block], device=batch.ids.device)
        zoom = whole / torch.tensor([float(s) for s in self.sides], device=whole.device)
        return Placement(
            (whole / 2).expand(count, axes), torch.diag(zoom).expand(count, axes, axes)
        )

    def plain(self, batch: Batch) -> Tensor:
        """float32 `[B, C, *sides]`, normalised."""
        if self.sides == self.block:
            return self.normalised(self.unit(batch.data))
        return self.normalised(self.seen(batch.data, self.middle(batch)))


def by_rows(made: Callable[[slice], Tensor], data: Tensor) -> Tensor:
    """`made` of all rows of `data`, on a CPU some at a time.

    Every operation of a chain then finds the last one's result in the cache, and memory that is
    given back and taken again without the system's help.
    """
    step = max(1, _AT_ONCE * len(data) // data.numel()) if data.device.type == "cpu" else len(data)
    if step >= len(data):
        return made(slice(None))
    first = made(slice(0, step))
    out = first.new_empty(len(data), *first.shape[1:])
    out[:step] = first
    for at in range(step, len(data), step):
        out[at : at + step] = made(slice(at, at + step))
    return out


def frame(spec: Spec, size: int | Sequence[int] | None) -> Frame:
    """Sides of views: one number for all axes or one each (None: the block, a multiple of 4)."""
    axes = int(spec["axes"])
    if size is None:
        sides = [max(4, b // 4 * 4) for b in spec["block"][:axes]]
    else:
        sides = [size] * axes if isinstance(size, int) else list(size)
    if len(sides) != axes or any(not isinstance(s, int) or s < 4 for s in sides):
        raise ValueError(f"size must be one integer of at least 4 or {axes}, got {size!r}")
    return Frame({**spec, "view_sides": list(sides)}, tuple(sides))


@dataclass(frozen=True)
class Augmentation:
    """One kind of view: where it lies and how intensities change."""

    frame: Frame
    place: RandomPlacement = field(default_factory=RandomPlacement)
    intensity: Intensity = NEUTRAL
    role: str = "global"

    def __call__(
        self, batch: Batch, rng: Rng, *, near: Tensor | None = None, reach: float = 1.0
    ) -> tuple[View, Placement]:
        """The view, and its placement in the block's voxels."""
        data, sides, spec = batch.data, self.frame.sides, self.frame.spec
        place = self.place.sample(
            rng, self.frame.block, sides, spec["spacing"], near=near, reach=reach
        )

        def made(rows: slice) -> Tensor:
            x = self.frame.seen(data[rows], place.rows(rows))
            return self.frame.normalised(self.intensity(x, rng[rows]))

        x = by_rows(made, data.data)
        return View(x, rng, role=self.role, params=place.told(data, spec["spacing"])), place


@dataclass(frozen=True)
class VolumePolicy:
    """Random views of every scan, one for each of `views`, and one plain view.

    With `reach` below 1 every view after the first lies at most that share of its extent away from
    the first, so that both overlap by at least 1 - `reach` along each axis.
    """

    frame: Frame
    views: tuple[Augmentation, ...] = ()
    reach: float | None = None

    @property
    def spec(self) -> Spec:
        """The reader's facts, with the sides that encoders will see."""
        return self.frame.spec

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        if not self.views:
            return [View(self.plain(batch), rng.fold("view", 0))]
        made: list[View] = []
        first: Tensor | None = None
        for v, augmentation in enumerate(self.views):
            near = first if self.reach is not None else None
            view, place = augmentation(
                batch, rng.fold("view", v), near=near, reach=self.reach or 1.0
            )
            first = place.centre if first is None else first
            made.append(view)
        return made

    def plain(self, batch: Batch) -> Tensor:
        """float32 `[B, C, *sides]`, normalised."""
        return self.frame.plain(batch)


def placement(
    scale: Range,
    angle: float,
    flip: float | Sequence[float],
    turns: float,
    elastic: float = 0.0,
) -> RandomPlacement:
    """A checked `RandomPlacement`; one `flip` for all axes or one each."""
    if len(scale) != 2:
        raise ValueError(f"scale must be two numbers (low, high), got {scale!r}")
    flips = [flip] * 3 if isinstance(flip, (int, float)) else [*flip, 0.0, 0.0][:3]
    low, high = float(scale[0]), float(scale[1])
    return RandomPlacement((low, high), angle, (flips[0], flips[1], flips[2]), turns, elastic)


def intensity(options: dict[str, Any]) -> Intensity:
    """`Intensity` from options; an unknown one is a `UserError` with the nearest name."""
    check_options("views", Intensity, options, positional=0)
    return Intensity(**options)


def pairs(
    spec: Spec,
    *,
    size: int | Sequence[int] | None = None,
    views: int = 2,
    scale: Range = (0.6, 1.0),
    overlap: float | None = None,
    angle: float = 10.0,
    flip: float | Sequence[float] = 0.0,
    turns: float = 0.0,
    elastic: float = 0.0,
    **options: Any,
) -> VolumePolicy:
    """Crops of one block with changed intensities, for contrastive methods.

    `overlap` is the least share along each axis that later crops have in common with the first
    (nnssl's SimCLR: 0.5); None lets them lie anywhere.
    """
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    if overlap is not None and not 0 <= overlap < 1:
        raise ValueError(f"overlap must lie in [0, 1), got {overlap}")
    where = placement(scale, angle, flip, turns, elastic)
    base = frame(spec, size)
    view = Augmentation(base, where, intensity(options))
    return VolumePolicy(base, (view,) * views, None if overlap is None else 1 - overlap)


def dino(
    spec: Spec,
    *,
    size: int | Sequence[int] | None = None,
    local_size: int | Sequence[int] | None = None,
    global_views: int = 2,
    local_views: int = 4,
    global_scale: Range = (0.7, 1.0),
    local_scale: Range = (0.3, 0.6),
    angle: float = 10.0,
    flip: float | Sequence[float] = 0.0,
    turns: float = 0.0,
    elastic: float = 0.0,
    **options: Any,
) -> VolumePolicy:
    """Multi-crop: global views first, then smaller ones of half the side (a multiple of 4)."""
    if global_views < 1 or local_views < 0:
        raise ValueError(f"need a global view, got global_views={global_views}")
    base = frame(spec, size)
    small = local_size or [max(4, side // 8 * 4) for side in base.sides]
    change = intensity(options)
    large = Augmentation(base, placement(global_scale, angle, flip, turns, elastic), change)
    where = placement(local_scale, angle, flip, turns, elastic)
    local = Augmentation(frame(spec, small), where, change, role="local")
    return VolumePolicy(base, (large,) * global_views + (local,) * local_views)


def mae(
    spec: Spec,
    *,
    size: int | Sequence[int] | None = None,
    scale: Range = (0.8, 1.0),
    angle: float = 0.0,
    flip: float | Sequence[float] = 0.0,
    turns: float = 0.0,
    elastic: float = 0.0,
) -> VolumePolicy:
    """One crop with its own intensities, for masked methods."""
    base = frame(spec, size)
    return VolumePolicy(base, (Augmentation(base, placement(scale, angle, flip, turns, elastic)),))


def weak(spec: Spec, *, size: int | Sequence[int] | None = None) -> VolumePolicy:
    """One gentle view for fine-tuning: nearly the whole block, slightly turned and changed."""
    base = frame(spec, size)
    change = Intensity(noise=0.2, blur=0.0, bias=0.2, strength=0.5)
    return VolumePolicy(base, (Augmentation(base, RandomPlacement((0.85, 1.0), 5.0), change),))


def none(spec: Spec, *, size: int | Sequence[int] | None = None) -> VolumePolicy:
    """One view, the plain one: nothing random."""
    return VolumePolicy(frame(spec, size))
