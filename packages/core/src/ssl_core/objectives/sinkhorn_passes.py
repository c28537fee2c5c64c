"""The passes of Sinkhorn-Knopp over a batch by torch's calls, in blocks of rows."""

from __future__ import annotations

import torch
from torch import Tensor


def exponentiate(logits: Tensor, scale: float, q: Tensor) -> tuple[Tensor, Tensor]:
    """Fills `q` with 2^(scale (l - maximum of its row)), `[B, K]`.

    Gives the sum over rows of 2^(scale (l - largest)), `[K]`, and scale times the largest of all.
    """
    mass, largest = logits.new_zeros(logits.shape[1]), logits.new_full((), -torch.inf)
    for block in blocks(logits):
        top = logits[block].amax(1).mul_(scale)
        part = torch.add(-top.unsqueeze(1), logits[block], alpha=scale, out=q[block]).exp2_()
        before, largest = largest, torch.maximum(largest, top.max())
        mass = mass * (before - largest).exp2() + (top - largest).exp2() @ part
    return mass, largest


def column_mass(q: Tensor, v: Tensor) -> Tensor:
    """sum_r u_r q_r, `[K]`, with u_r = 1 / <q_r, v>."""
    mass = torch.zeros_like(v)
    for block in blocks(q):
        mass += (1 / (q[block] @ v)) @ q[block]
    return mass


def normalise_(q: Tensor, v: Tensor) -> None:
    """Makes `q` diag(u) q diag(v), with rows of mass 1."""
    for block in blocks(q):
        q[block].mul_((1 / (q[block] @ v)).unsqueeze(1)).mul_(v)


def blocks(q: Tensor) -> list[slice]:
    """Rows that stay in a CPU's cache together (1 MiB of float32); all of them elsewhere."""
    rows, columns = q.shape
    # A view may hide no token.
    size = max(1, 2**18 // columns if q.device.type == "cpu" else rows)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
