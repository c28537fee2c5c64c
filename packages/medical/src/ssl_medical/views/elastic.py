"""Elastic deformation: a cubic B-spline over a coarse grid (Rueckert et al. 1999).

Control points `[B, n, K, ...]` (n axes of `CELLS` + 3 points each) hold displacements in voxels of
the block; the field of a view is smooth, and zero where they are. It cannot fold while they move
less than 0.4 of a cell (Choi & Lee 2000: 1/2.48 on three axes).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_core.rng import Rng

CELLS = 4
"""Cells of the grid along each axis of a view."""
MOST = 0.4


def control_points(rng: Rng, extent: Tensor, *, most: float) -> Tensor:
    """Displacements up to `most` of a cell for views of `extent` `[B, n]` voxels.

    How far a sample's points may move at all is drawn first, so that some are hardly bent.
    """
    axes = extent.shape[1]
    count = (CELLS + 3) ** axes
    strength = rng.uniform("elastic strength", high=most)
    unit = rng.uniform("elastic", axes, count, low=-1.0)
    points = unit * (strength[:, None] * extent / CELLS)[:, :, None]
    return points.view(len(rng), axes, *[CELLS + 3] * axes)


def field(control: Tensor, sides: Sequence[int]) -> list[Tensor]:
    """Displacements along each axis, `[B, *sides]` each.

    Sums of one term a control point, axis after axis: a matrix product would round by the batch.
    """
    found = control
    for axis, side in enumerate(sides):
        weights = basis(side, device=control.device).to(control.dtype)  # [side, K]
        dim = 2 + axis
        shape = [-1 if a == dim else 1 for a in range(control.dim())]
        points = found.unbind(dim)
        total = points[0].unsqueeze(dim) * weights[:, 0].view(shape)
        for k in range(1, len(points)):
            total = torch.addcmul(total, points[k].unsqueeze(dim), weights[:, k].view(shape))
        found = total
    return list(found.unbind(1))


def basis(side: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Weights float32 `[side, K]` of the control points at voxel centres; rows sum to one."""
    at = (torch.arange(side, device=device) + 0.5) * CELLS / side
    gap = (at[:, None] - torch.arange(-1, CELLS + 2, device=device)).abs()
    near = 2 / 3 - gap**2 + gap**3 / 2
    far = (2 - gap).clamp(min=0) ** 3 / 6
    return torch.where(gap < 1, near, far)
