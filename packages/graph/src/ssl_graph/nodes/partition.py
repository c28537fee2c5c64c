"""A balanced partition of a network, grown from hubs (in place of METIS)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def grow_parts(ptr: Tensor, neighbours: Tensor, *, parts: int | None = None) -> Tensor:
    """The part of each node of compressed rows, int64 `[N]`, numbered from 0 without gaps.

    Breadth-first growth from the node of highest degree that has no part yet, until a part holds
    its share; `parts` defaults to one per 100 nodes. Neighbours therefore mostly share a part,
    and no part is larger than N / parts rounded up. A pure function of the network.
    """
    count = len(ptr) - 1
    wanted = max(1, count // 100) if parts is None else parts
    if wanted < 1:
        raise ValueError(f"parts must be at least 1, got {parts}")
    room = -(-count // wanted)
    device, ptr, neighbours = ptr.device, ptr.cpu().numpy(), neighbours.cpu().numpy()
    part = np.full(count, -1, dtype=np.int64)
    number = 0
    for seed in np.argsort(-np.diff(ptr), kind="stable").tolist():
        if part[seed] >= 0:
            continue
        part[seed] = number
        frontier = np.array([seed])
        size = 1
        while size < room and len(frontier):
            rows = [neighbours[ptr[v] : ptr[v + 1]] for v in frontier.tolist()]
            near = np.unique(np.concatenate(rows))
            fresh = near[part[near] < 0][: room - size]
            part[fresh] = number
            size += len(fresh)
            frontier = fresh
        number += 1
    return torch.from_numpy(part).to(device)
