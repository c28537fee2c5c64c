"""Cutting inputs of 1, 2 or 3 axes into tiles, and orders of tiles worth telling apart."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from ssl_core.errors import UserError
from ssl_core.rng import Rng, generator


def cut_tiles(
    x: Tensor, cells: int, rng: Rng, *, share: float = 0.75, standardise: bool = True
) -> Tensor:
    """`cells` tiles along each axis of `[B, C, *sides]`: `[B, cells^axes, C, *tile]`.

    Each cell holds one tile of `share` of its side at a random place, so that edges do not run on
    from tile to tile (64 of 85 pixels in Noroozi & Favaro 2016). With `standardise` every channel
    of a tile has mean 0 and variance 1, so that brightness does not give its place away.
    """
    axes = x.dim() - 2
    sides = [side // cells for side in x.shape[2:]]
    tile = [max(1, round(side * share)) for side in sides]
    if min(sides) < 2:
        raise UserError(
            f"inputs of {'x'.join(map(str, x.shape[2:]))} are too small for {cells} tiles a side; "
            "use larger views"
        )
    count = cells**axes
    place = torch.cartesian_prod(*[torch.arange(cells, device=x.device)] * axes).reshape(-1, axes)
    rows = torch.arange(x.shape[0], device=x.device)
    index = [rows.reshape(-1, 1, *[1] * axes)]
    for axis, (side, size) in enumerate(zip(sides, tile, strict=True)):
        jitter = rng.integers(f"tile {axis}", count, high=side - size + 1)  # [B, n]
        first = place[:, axis] * side + jitter
        inside = torch.arange(size, device=x.device)
        shape = [1] * axes
        shape[axis] = size
        index.append(first.reshape(*first.shape, *[1] * axes) + inside.reshape(shape))
    tiles = x.movedim(1, -1)[tuple(index)].movedim(-1, 2)  # [B, n, C, *tile]
    if not standardise:
        return tiles
    over = tuple(range(3, tiles.dim()))
    variance, mean = torch.var_mean(tiles, dim=over, keepdim=True, correction=0)
    return (tiles - mean) * (variance + 1e-6).rsqrt()


def permutation_set(length: int, count: int, *, first: int = 0) -> Tensor:
    """`count` orders of `length` things, far apart: int64 `[count, length]`.

    Each one added has the greatest mean Hamming distance to those before it, the earliest in
    lexicographic order where several have (Noroozi & Favaro 2016). All length! orders are
    considered up to nine things, 100,000 random ones beyond. `first` is where to start.
    """
    if length <= 9:
        orders = np.array(list(itertools.permutations(range(length))), dtype=np.int8)
    else:
        random = generator("permutations", length)
        orders = random.permuted(np.tile(np.arange(length, dtype=np.int8), (100_000, 1)), axis=1)
    if not 1 <= count <= len(orders):
        raise ValueError(
            f"permutations must lie between 1 and {math.factorial(length)} for {length} tiles, "
            f"got {count}"
        )
    total = np.zeros(len(orders), dtype=np.int64)
    chosen = [first]
    while len(chosen) < count:
        total += (orders != orders[chosen[-1]]).sum(1)
        total[chosen[-1]] = -len(orders) * length  # never again
        chosen.append(int(total.argmax()))
    return torch.from_numpy(orders[chosen].astype(np.int64))
