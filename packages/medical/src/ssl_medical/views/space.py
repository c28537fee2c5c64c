"""Where in a block a view lies: one affine sampling for crop, zoom, rotation, quarter turn, flip.

Works on two or three axes. Provenance is in millimetres of the whole scan, so that a method can
tell how two views overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.ops.geometry import check_probability
from ssl_core.rng import Rng
from ssl_medical.blocks import Blocks
from ssl_medical.views.elastic import MOST, control_points, field

_MOST_ROWS = 2**15
"""Rows of an image that float32 still tells apart to 1/250 of one."""


@dataclass(frozen=True)
class Placement:
    """For every sample, where output voxels lie in the block.

    `centre` `[B, n]` in voxel edges (voxel i covers i to i + 1); `matrix` `[B, n, n]` takes steps
    between output voxels to steps in the block. `bend` are control points of an elastic field
    (`elastic.field`) added to the places; provenance tells the places before.
    """

    centre: Tensor
    matrix: Tensor
    bend: Tensor | None = None

    def rows(self, chosen: slice) -> Placement:
        """Where some of the samples lie."""
        bend = None if self.bend is None else self.bend[chosen]
        return Placement(self.centre[chosen], self.matrix[chosen], bend)

    def at(self, sides: Sequence[int], scale: Tensor, shift: Tensor) -> list[Tensor]:
        """Where output voxels lie, times `scale` plus `shift` (`[n]` each): an axis `[B, *sides]`.

        Scaled from the start: every pass over all places counts.
        """
        found = _along(self.matrix * scale[:, None], self.centre * scale + shift, sides)
        if self.bend is None:
            return found
        shape = (1, -1, *[1] * len(sides))
        bent = field(self.bend * scale.view(shape), sides)
        return [place.add_(more) for place, more in zip(found, bent, strict=True)]

    def told(self, data: Blocks, spacing: Sequence[float]) -> dict[str, Tensor]:
        """A view's provenance: `millimetres`, and `place`, its centre as shares of the scan."""
        axes = self.centre.shape[1]
        place = (self.centre + data.corner[:, :axes]) / data.shape[:, :axes]
        return {**self.millimetres(data.corner, spacing), "place": place}

    def millimetres(self, corner: Tensor, spacing: Sequence[float]) -> dict[str, Tensor]:
        """`centre` and `matrix` in mm from the scan's corner."""
        axes = self.centre.shape[1]
        step = self.centre.new_tensor(spacing[:axes])
        return {
            "centre": (self.centre + corner[:, :axes].to(self.centre)) * step,
            "matrix": self.matrix * step[:, None],
        }


def sampled(x: Tensor, place: Placement, sides: Sequence[int], *, nearest: bool = False) -> Tensor:
    """`[B, C, *block]` at a placement: float `[B, C, *sides]`; zero outside the block.

    Stored voxels (int16) come as float32 of the same values. The identity, flips and quarter turns
    are exact to rounding.
    """
    plain = x.device.type == "cpu" and x.dtype in (torch.float32, torch.int16) and not nearest
    if plain and x.dim() == 5 and (x.shape[2] + 2) * (x.shape[3] + 2) <= _MOST_ROWS:
        return _by_slabs(x, place, sides)
    x = x if x.is_floating_point() else x.float()
    whole = place.matrix.new_tensor(x.shape[2:])
    at = place.at(sides, 2 / whole, -torch.ones_like(whole))
    grid = torch.stack(at[::-1], dim=-1)  # torch counts the last axis first
    mode = "nearest" if nearest else "bilinear"
    return F.grid_sample(x, grid.to(x.dtype), mode=mode, align_corners=False)


def _along(matrix: Tensor, centre: Tensor, sides: Sequence[int]) -> list[Tensor]:
    """matrix @ steps + centre over the steps of a view, an axis a tensor `[B, *sides]`.

    Sums of one term an axis: only the last one is made at full size.
    """
    count = len(sides)
    found = []
    for row in range(count):
        total = centre[:, row].view(-1, *[1] * count)
        for axis in reversed(range(count)):
            steps = torch.arange(sides[axis], device=matrix.device) + 0.5 - sides[axis] / 2
            shape = [-1 if a == axis else 1 for a in range(count)]
            total = total + matrix[:, row, axis].view(-1, *[1] * count) * steps.view(shape)
        found.append(total)
    return found


def _by_slabs(x: Tensor, place: Placement, sides: Sequence[int]) -> Tensor:
    """Trilinear sampling of float32 or int16 `[B, C, X, Y, Z]` by torch's planar kernel.

    On a CPU that kernel is vectorised and the one for volumes is not. The slabs of the first axis
    stand below one another in one image, zeros around each; every place is looked up in its slab
    and, as further channels, in the next, and the two are mixed. Rows are exact to 2^-24 of their
    number: about 1/2000 of a voxel in a block of 80 a side.
    """
    rows, channels, depth, height, width = x.shape
    tall = height + 2
    padded = torch.zeros(rows, channels, depth + 3, tall, width)
    padded[:, :, 1 : depth + 1, 1 : height + 1] = x
    # The next slab is the same memory one slab later: channels that overlap, not a copy.
    each, own, slab_stride = padded.stride()[:3]
    shape = (rows, 2, channels, (depth + 2) * tall, width)
    image = padded.as_strided(shape, (each, slab_stride, own, width, 1)).flatten(1, 2)
    # Rows and columns are in the kernel's units, -1 to 1.
    scale = place.matrix.new_tensor([1.0, 2 / image.shape[2], 2 / width])
    shift = scale.new_tensor([0.0, 0.0, 1 / width - 1]) - 0.5 * scale
    first, second, third = place.at(sides, scale, shift)
    # What is made anew costs as much as what is computed: the system hands out empty pages.
    grid = first.new_empty(*first.shape, 2)
    slab = torch.floor(first.clamp_(-1, depth), out=grid[..., 0])
    share = first.sub_(slab).unsqueeze(1)  # [B, 1, *sides]
    down = 2 / image.shape[2]
    second = second.clamp_(-down, height * down).add_((tall + 1.5) * down - 1)
    torch.add(second, slab, alpha=tall * down, out=grid[..., 1])
    grid[..., 0] = third
    grid = grid.view(rows, -1, sides[-1], 2)
    both = F.grid_sample(image, grid, align_corners=False).view(rows, 2, channels, *sides)
    # The sum lies where the places did, unless there are more channels than room.
    room = third.unsqueeze(1) if channels == 1 else None
    return torch.lerp(both[:, 0], both[:, 1], share, out=room)


@dataclass(frozen=True)
class RandomPlacement:
    """Crops of a share `scale` of the block's sides, turned by up to `angle` degrees an axis.

    `flips` are probabilities of mirroring along each axis (left and right differ in anatomy: the
    default mirrors none), `turns` that of a random quarter turn in the axial plane. `elastic` is
    how far points of a coarse grid may move, in its cells (0: nothing bends).
    """

    scale: tuple[float, float] = (0.6, 1.0)
    angle: float = 10.0
    flips: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turns: float = 0.0
    elastic: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale must be an increasing pair in (0, 1], got {self.scale}")
        for p in (*self.flips, self.turns):
            check_probability("flip or turn", p)
        if not 0 <= self.elastic <= MOST:
            raise ValueError(f"elastic must lie in 0..{MOST}, or space folds; got {self.elastic}")

    def sample(
        self,
        rng: Rng,
        block: Sequence[int],
        sides: Sequence[int],
        spacing: Sequence[float],
        *,
        near: Tensor | None = None,
        reach: float = 1.0,
    ) -> Placement:
        """Placements of B samples; with `near` (centres `[B, n]`) at most `reach` extents away."""
        axes = len(sides)
        whole = torch.tensor([float(b) for b in block[:axes]], device=rng.device)
        share = rng.uniform("scale", low=self.scale[0], high=self.scale[1])
        extent = share[:, None] * whole  # [B, n]
        unit = rng.uniform("centre", axes)
        low, high = extent / 2, whole - extent / 2
        if near is not None:
            low = torch.maximum(low, near - reach * extent)
            high = torch.maximum(low, torch.minimum(high, near + reach * extent))
        centre = low + unit * (high - low)
        zoom = extent / extent.new_tensor([float(s) for s in sides])
        matrix = self._turned(rng, axes, spacing) * zoom[:, :, None]
        bend = control_points(rng, extent, most=self.elastic) if self.elastic else None
        return Placement(centre, matrix @ self._exact(rng, axes), bend)

    def _turned(self, rng: Rng, axes: int, spacing: Sequence[float]) -> Tensor:
        """Small rotations `[B, n, n]`, rigid in millimetres."""
        angles = rng.uniform("angle", 3, low=-self.angle, high=self.angle) * (math.pi / 180)
        out = torch.eye(axes, device=rng.device).expand(len(rng), axes, axes)
        for plane, (i, j) in enumerate(((0, 1), (0, 2), (1, 2)) if axes == 3 else ((0, 1),)):
            out = out @ _plane(angles[:, plane], i, j, axes)
        step = out.new_tensor(spacing[:axes])
        return out * (step[None, None, :] / step[None, :, None])

    def _exact(self, rng: Rng, axes: int) -> Tensor:
        """Flips and quarter turns `[B, n, n]`: matrices of 0 and +-1."""
        p = torch.tensor(self.flips[:axes], device=rng.device)
        sign = 1 - 2 * (rng.uniform("flip", axes) < p).float()
        quarters = rng.integers("turns", low=1, high=4) * rng.bernoulli("turn", p=self.turns)
        return torch.diag_embed(sign) @ quarter(quarters, axes)


def quarter(count: Tensor, axes: int) -> Tensor:
    """Turns by `count` quarters (int64 `[B]`) in the plane of the first two axes: `[B, n, n]`."""
    cos = torch.tensor([1.0, 0.0, -1.0, 0.0], device=count.device)[count % 4]
    sin = torch.tensor([0.0, 1.0, 0.0, -1.0], device=count.device)[count % 4]
    return _filled(cos, sin, 0, 1, axes)


def _plane(angle: Tensor, i: int, j: int, axes: int) -> Tensor:
    return _filled(angle.cos(), angle.sin(), i, j, axes)


def _filled(cos: Tensor, sin: Tensor, i: int, j: int, axes: int) -> Tensor:
    out = torch.eye(axes, device=cos.device).repeat(len(cos), 1, 1)
    out[:, i, i] = out[:, j, j] = cos
    out[:, i, j], out[:, j, i] = -sin, sin
    return out


def overlap(first: dict[str, Tensor], second: dict[str, Tensor], sides: Sequence[int]) -> Tensor:
    """Share of the first view's bounding box that the second's covers, in mm: `[B]` in 0..1.

    `first` and `second` are provenances (`centre`, `matrix`); exact where views are not rotated.
    """
    n = first["centre"].new_tensor([float(s) for s in sides])
    half = [(view["matrix"].abs() @ n) / 2 for view in (first, second)]
    low = torch.maximum(first["centre"] - half[0], second["centre"] - half[1])
    high = torch.minimum(first["centre"] + half[0], second["centre"] + half[1])
    return ((high - low).clamp(min=0) / (2 * half[0])).prod(1)
