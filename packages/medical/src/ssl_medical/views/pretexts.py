"""View policies of the medical pretexts: corrupted blocks with what to restore, slices, grids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_medical.views import paint
from ssl_medical.views.intensity import Intensity, bezier
from ssl_medical.views.policies import (
    Frame,
    Range,
    Spec,
    VolumePolicy,
    frame,
    intensity,
    placement,
)
from ssl_medical.views.space import Placement, RandomPlacement


@dataclass(frozen=True)
class Restore(VolumePolicy):
    """One corrupted block; `params["target"]` is the block before (normalised like `data`)."""

    place: RandomPlacement = RandomPlacement((1.0, 1.0), 0.0)  # noqa: RUF009  frozen
    shuffle: float = 0.5
    curve: float = 0.9
    painting: float = 0.9
    inside: float = 0.2
    windows: int = 10_000

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        rng, own = rng.fold("view", 0), self.frame
        place = self.place.sample(rng, own.block, own.sides, own.spec["spacing"])
        clean = own.seen(batch.data, place)
        told = place.told(batch.data, own.spec["spacing"])
        params = {**told, "target": own.normalised(clean)}
        return [View(own.normalised(self.corrupted(clean, rng)), rng, params=params)]

    def corrupted(self, x: Tensor, rng: Rng) -> Tensor:
        """Shuffled, mapped along a curve and painted, each with its probability."""
        shape = (-1, *[1] * (x.dim() - 1))
        if self.shuffle and self.windows:
            mixed = paint.shuffled_windows(x, rng, windows=self.windows)
            x = torch.where(rng.bernoulli("has shuffle", p=self.shuffle).view(shape), mixed, x)
        if self.curve:
            falling = rng.bernoulli("falling curve", p=0.5)
            mapped = bezier(x.clamp(0, 1), rng.uniform("curve", 4), falling)
            x = torch.where(rng.bernoulli("has curve", p=self.curve).view(shape), mapped, x)
        if self.painting:
            sides = x.shape[2:]
            within = rng.bernoulli("inside", p=self.inside).view(shape)
            holes = paint.in_painting(rng.fold("in"), sides)
            hidden = torch.where(within, holes, paint.out_painting(rng.fold("out"), sides))
            hidden = hidden & rng.bernoulli("has painting", p=self.painting).view(shape)
            x = torch.where(hidden, paint.noise_like(x, rng), x)
        return x


def restore(
    spec: Spec,
    *,
    size: int | Sequence[int] | None = None,
    scale: Range = (0.8, 1.0),
    angle: float = 0.0,
    flip: float | Sequence[float] = 0.0,
    turns: float = 0.0,
    shuffle: float = 0.5,
    curve: float = 0.9,
    painting: float = 0.9,
    inside: float = 0.2,
    windows: int | None = None,
) -> Restore:
    """Models Genesis' corruptions (Zhou et al. 2021), with its probabilities.

    `inside` is the share of in-painting among paintings. `windows` defaults to the paper's 10 000
    in 64 x 64 x 32 voxels, in proportion.
    """
    base = frame(spec, size)
    count = round(10_000 * math.prod(base.sides) / 2**17) if windows is None else windows
    where = placement(scale, angle, flip, turns)
    return Restore(base, (), None, where, shuffle, curve, painting, inside, max(1, count))


@dataclass(frozen=True)
class CutOuts(VolumePolicy):
    """Two views of one crop, each turned by quarters and cut out.

    `params` hold `quarters` (int64 `[B]`) and `target`, the turned crop before it was cut.
    """

    place: RandomPlacement = RandomPlacement()  # noqa: RUF009  frozen
    share: float = 0.3

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        own, spacing = self.frame, self.frame.spec["spacing"]
        place = self.place.sample(rng.fold("crop"), own.block, own.sides, spacing)
        x = own.seen(batch.data, place)
        told = place.told(batch.data, spacing)
        made = []
        for v in range(2):
            key = rng.fold("view", v)
            quarters = key.integers("quarters", high=4)
            turned = quarter_turned(x, quarters)
            hidden = paint.cut_out(key, own.sides, share=self.share)
            shown = torch.where(hidden, paint.noise_like(x, key), turned)
            params = {**told, "quarters": quarters, "target": own.normalised(turned)}
            made.append(View(own.normalised(shown), key, params=params))
        return made


def quarter_turned(x: Tensor, quarters: Tensor) -> Tensor:
    """Every sample turned by its number of quarters in the axial plane (the first two axes)."""
    turned = torch.stack([x.rot90(k, (2, 3)) for k in range(4)])
    return turned[quarters, torch.arange(len(x), device=x.device)]


def cutouts(
    spec: Spec,
    *,
    size: int | Sequence[int] | None = None,
    scale: Range = (0.6, 1.0),
    angle: float = 0.0,
    flip: float | Sequence[float] = 0.0,
    share: float = 0.3,
) -> CutOuts:
    """Swin UNETR's two views: quarter turns and cut-outs of up to `share` of the volume.

    A `flip` of both the first axes is half a turn: with flips no network can tell how many quarters
    a view was turned, only whether they are even.
    """
    base = frame(spec, size)
    if base.sides[0] != base.sides[1]:
        raise UserError(f"views cutouts: quarter turns need square views, got {base.sides}")
    return CutOuts(base, (), None, placement(scale, angle, flip, 0.0), share)


@dataclass(frozen=True)
class Slices:
    """`views` versions of one axial slice of every block: the slice itself first, then altered.

    All versions show the same crop, so that places correspond. `params["partition"]` is which of
    `partitions` equal parts of the scan the slice lies in.
    """

    frame: Frame
    partitions: int
    views: int
    place: RandomPlacement
    intensity: Intensity

    @property
    def spec(self) -> Spec:
        return self.frame.spec

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        data, own = batch.data, self.frame
        depth = data.data.shape[-1]
        level = rng.integers("slice", high=depth)
        rows = torch.arange(len(batch), device=level.device)
        # Rows and levels first, then what is left of the block: [B, C, X, Y].
        flat = data.__class__(data.data[rows, ..., level, None], data.corner, data.shape)
        place = self.place.sample(rng, own.block, own.sides, own.spec["spacing"])
        x = own.seen(flat, place)
        share = (data.corner[:, 2] + level + 0.5) / data.shape[:, 2]
        part = (share * self.partitions).floor().clamp(0, self.partitions - 1).long()
        made = []
        for v in range(self.views):
            key = rng.fold("view", v)
            seen = self.intensity(x, key) if v else x
            made.append(View(own.normalised(seen), key, params={"partition": part}))
        return made

    def plain(self, batch: Batch) -> Tensor:
        """The middle slice, normalised: `[B, C, *sides]`."""
        data = batch.data
        middle = data.data.shape[-1] // 2
        part = data.__class__(data.data[..., middle : middle + 1], data.corner, data.shape)
        return self.frame.plain(Batch(part, batch.ids, batch.index))


def slices(
    spec: Spec,
    *,
    size: int | Sequence[int] | None = None,
    partitions: int = 4,
    views: int = 3,
    scale: Range = (0.6, 1.0),
    angle: float = 0.0,
    flip: float | Sequence[float] = 0.0,
    **options: Any,
) -> Slices:
    """Axial slices for global and local contrast (Chaitanya et al. 2020); encoders work on 2 axes.

    `views` 3 is the release's original and two altered versions.
    """
    if partitions < 1 or views < 2:
        raise ValueError(f"need a partition and two views, got {partitions} and {views}")
    flat = {**spec, "axes": 2, "block": [*spec["block"][:2], 1]}
    return Slices(
        frame(flat, size),
        partitions,
        views,
        placement(scale, angle, flip, 0.0),
        intensity({"blur": 0.0, **options}),
    )


@dataclass(frozen=True)
class Grid(VolumePolicy):
    """VoCo's views: `grid` base crops that tile the block, then random crops of the same size.

    `params["overlap"]` of a random crop is the share of it that each base covers, `[B, bases]`.
    """

    grid: tuple[int, ...] = (4, 4, 1)
    targets: int = 1
    angle: float = 0.0

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        own, device = self.frame, batch.ids.device
        block = torch.tensor([float(b) for b in own.block], device=device)
        count = torch.tensor([float(g) for g in self.grid], device=device)
        extent = block / count
        zoom = extent / extent.new_tensor([float(s) for s in own.sides])
        matrix = torch.diag(zoom).expand(len(batch), -1, -1)
        cells = itertools.product(*map(range, self.grid))
        bases = [(torch.tensor(cell, device=device) + 0.5) * extent for cell in cells]
        made = []
        for n, centre in enumerate(bases):
            place = Placement(centre.expand(len(batch), -1), matrix)
            made.append(self._view(place, batch, rng.fold("view", n), "base"))
        for n in range(self.targets):
            key = rng.fold("view", len(bases) + n)
            centre = extent / 2 + key.uniform("centre", len(extent)) * (block - extent)
            view = self._view(Placement(centre, matrix), batch, key, "target")
            gaps = (torch.stack(bases)[None] - centre[:, None]).abs() / extent
            share = (1 - gaps).clamp(min=0).prod(2)  # [B, bases]; the bases tile: rows sum to one
            params = {**view.params, "overlap": share}
            made.append(View(view.data, key, role="target", params=params))
        return made

    def _view(self, place: Placement, batch: Batch, rng: Rng, role: str) -> View:
        seen = self.frame.normalised(self.frame.seen(batch.data, place))
        told = place.told(batch.data, self.frame.spec["spacing"])
        return View(seen, rng, role=role, params=told)


def voco(
    spec: Spec,
    *,
    size: int | Sequence[int] | None = None,
    grid: Sequence[int] = (4, 4, 1),
    targets: int = 1,
) -> Grid:
    """Base and target crops of Wu et al. (CVPR 2024); `grid` counts bases along each axis."""
    axes = int(spec["axes"])
    if len(grid) < axes or min(grid) < 1 or targets < 1:
        raise ValueError(f"need positive grid and targets, got {grid!r} and {targets}")
    chosen = tuple(int(g) for g in grid[:axes])
    if size is None:
        sides = zip(spec["block"], chosen, strict=False)
        size = [max(4, int(b) // g // 4 * 4) for b, g in sides]
    return Grid(frame(spec, size), (), None, chosen, targets)
