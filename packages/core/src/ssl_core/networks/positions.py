"""Where a token is: fixed sin-cos tables, learned tables on other grids, relative biases.

Sources: sin-cos of Vaswani et al. 2017 in the 2-D form of MAE (He et al. 2022), whose table is
[sin(column), cos(column), sin(row), cos(row)]; relative bias of BEiT (Bao et al. 2022) and Swin.
A grid is a tuple of 1 to 3 axis lengths; tokens are in raster order, the last axis fastest.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def grid_coords(grid: tuple[int, ...], *, device: torch.device | str = "cpu") -> Tensor:
    """Integer coordinates of every cell in raster order, int64 `[N, axes]`."""
    axes = [torch.arange(side, device=device) for side in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)


def sincos(coords: Tensor, dim: int, *, base: float = 10_000.0) -> Tensor:
    """Fixed position vectors of real coordinates `[..., axes]`: float64 `[..., dim]`.

    The axes share `dim` evenly, last axis first; an axis of width w has w/2 sines, then w/2
    cosines, of frequencies base^(-2i/w). What does not divide by 2 x axes stays zero at the end.
    """
    width = 2 * (dim // (2 * coords.shape[-1]))
    if width == 0:
        raise ValueError(f"sin-cos positions of {coords.shape[-1]} axes need more than {dim} dims")
    share = torch.arange(width // 2, dtype=torch.float64, device=coords.device) / (width / 2)
    angle = coords.to(torch.float64).flip(-1).unsqueeze(-1) * base**-share  # [..., axes, w/2]
    table = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)
    return F.pad(table, (0, dim - table.shape[-1]))


def sincos_grid(
    grid: tuple[int, ...],
    dim: int,
    *,
    like: tuple[int, ...] | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The table of a whole grid, float64 `[N, dim]`; kept for the next step, so not to be written
    to.

    With `like`, coordinates are those of a grid of that size covering the same extent (cell
    centres aligned), so that a model trained on `like` sees other resolutions in its own units.
    """
    entry = (grid, dim, like, str(device))
    if torch.compiler.is_compiling():
        return _grid_table(*entry)
    table = _tables.get(entry)
    if table is None:
        with torch.inference_mode(False):  # gradients may need it later
            table = _grid_table(*entry)
        if type(table) is Tensor:  # planning computes with tensors that hold nothing
            if len(_tables) == _KEPT:
                _tables.clear()
            _tables[entry] = table
    return table


_KEPT = 32
"""Tables; more than that are sizes of inputs that come and go."""
_tables: dict[tuple[tuple[int, ...], int, tuple[int, ...] | None, str], Tensor] = {}


def _grid_table(
    grid: tuple[int, ...], dim: int, like: tuple[int, ...] | None, device: str
) -> Tensor:
    coords = grid_coords(grid, device=device).to(torch.float64)
    if like is not None and like != grid:
        scale = torch.tensor([a / b for a, b in zip(like, grid, strict=True)], device=device)
        coords = (coords + 0.5) * scale - 0.5
    return sincos(coords, dim)


def _resampling(size: int, to: int, device: torch.device) -> Tensor:
    """Antialiased bicubic interpolation from `size` samples to `to`, as a `[to, size]` matrix."""
    # Along the width: torch interpolates wrongly along the height of maps one pixel wide.
    eye = torch.eye(size, device=device).reshape(1, size, 1, size)
    out = F.interpolate(eye, size=(1, to), mode="bicubic", antialias=True)
    return out[0, :, 0].T  # the unit vector of each input, interpolated


def resample_positions(table: Tensor, grid: tuple[int, ...], to: tuple[int, ...]) -> Tensor:
    """A learned table `[N, D]` on `grid`, interpolated to the grid `to`: `[M, D]`.

    Bicubic with antialiasing, axis by axis, as products with constant matrices: the gradient is a
    product too, so it repeats bit by bit on every device.
    """
    if grid == to:
        return table
    if len(grid) != len(to) or math.prod(grid) != table.shape[0]:
        raise ValueError(f"positions of {table.shape[0]} tokens on {grid} cannot go to {to}")
    with torch.autocast(table.device.type, enabled=False):
        out = table.reshape(*grid, -1)
        for axis, (size, new) in enumerate(zip(grid, to, strict=True)):
            if size != new:
                matrix = _resampling(size, new, table.device).to(table.dtype)
                out = torch.tensordot(matrix, out, dims=([1], [axis])).movedim(0, axis)
    return out.reshape(-1, table.shape[-1])


def move_positions(
    weights: dict[str, Tensor], own: Tensor | None, prefix: int, grid: tuple[int, ...]
) -> dict[str, Tensor]:
    """`weights` with `pos_embed` `[1, prefix + N, D]` interpolated to the shape of `own`.

    The table given is taken to be on a grid of equal sides; where it cannot be, or fits already,
    the weights are returned as they are.
    """
    table = weights.get("pos_embed")
    if table is None or own is None or table.shape == own.shape:
        return weights
    rows, axes = table.shape[1] - prefix, len(grid)
    side = round(rows ** (1 / axes))
    if side**axes != rows or table.shape[2] != own.shape[2]:
        return weights
    moved = resample_positions(table[0, prefix:], (side,) * axes, grid)
    return weights | {"pos_embed": torch.cat([table[0, :prefix], moved]).unsqueeze(0)}


class RelativePositionBias(nn.Module):
    """A learned bias per attention head and offset between two cells, shared by all blocks.

    `forward(grid, prefix)` gives `[heads, P + N, P + N]` for P prefix (class) tokens before the N
    cells. Three extra entries serve prefix-to-cell, cell-to-prefix and prefix-to-prefix. Grids up
    to the one of construction are covered.
    """

    def __init__(self, grid: tuple[int, ...], heads: int) -> None:
        super().__init__()
        self.grid = grid
        offsets = math.prod(2 * side - 1 for side in grid)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets + 3, heads))

    def index(self, grid: tuple[int, ...], prefix: int) -> Tensor:
        """Rows of the table, int64 `[P + N, P + N]`."""
        if len(grid) != len(self.grid) or any(a > b for a, b in zip(grid, self.grid, strict=True)):
            raise ValueError(f"relative positions cover grids up to {self.grid}, got {grid}")
        device = self.relative_position_bias_table.device
        coords = grid_coords(grid, device=device)
        offset = coords[:, None] - coords[None, :]  # [N, N, axes], query minus key
        cell = torch.zeros(offset.shape[:2], dtype=torch.int64, device=device)
        for axis, side in enumerate(self.grid):
            cell = cell * (2 * side - 1) + offset[..., axis] + side - 1
        extra = self.relative_position_bias_table.shape[0] - 3
        index = cell.new_full((prefix + cell.shape[0],) * 2, extra + 2)
        index[prefix:, prefix:] = cell
        index[:prefix, prefix:] = extra
        index[prefix:, :prefix] = extra + 1
        return index

    def forward(self, grid: tuple[int, ...], prefix: int = 0) -> Tensor:
        bias = self.relative_position_bias_table[self.index(grid, prefix)]
        return bias.permute(2, 0, 1)
