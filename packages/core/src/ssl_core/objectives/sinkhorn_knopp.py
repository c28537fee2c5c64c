"""Assignments of a batch to prototypes that share it evenly (Sinkhorn-Knopp)."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from ssl_core.compiling import one_thread
from ssl_core.distributed import all_sum, world_size
from ssl_core.objectives import sinkhorn_passes
from ssl_core.objectives.precision import LOG2_E, full_precision


@torch.no_grad()
@full_precision
def sinkhorn(
    logits: Tensor, *, temperature: float = 0.05, iterations: int = 3, out: Tensor | None = None
) -> Tensor:
    """Soft assignments `[B, K]` whose prototypes share the batch evenly.

    Sinkhorn-Knopp on exp(logits / temperature): prototypes to mass 1/K over the batch of all
    replicas, samples to mass 1, `iterations` times (SwAV: Caron et al. 2020; DINOv2). Rows sum to
    1. No gradient. Uniform logits give uniform assignments. `out` is a buffer to write into (it
    may be `logits` itself): in a loop fresh memory costs as much as the arithmetic.
    """
    if iterations < 1:
        raise ValueError(f"sinkhorn: iterations must be at least 1, got {iterations}")
    if temperature <= 0:
        raise ValueError(f"sinkhorn: temperature must be positive, got {temperature}")
    out = torch.empty_like(logits) if out is None else out
    passes = _passes(logits, out)
    rows, prototypes = logits.shape
    samples = all_sum(logits.new_tensor(float(rows)))  # replicas may hold different numbers
    # The assignment is diag(u) q diag(v) throughout: a row of q is read once an iteration, for its
    # u and for the next v. Rows are shifted by their own maximum, and u starts where that puts it,
    # so that nothing overflows; the largest so far scales what has been summed.
    mass, largest = passes.exponentiate(logits, LOG2_E / temperature, out)
    mass = mass * (largest - _everywhere(largest)).exp2()
    tiny = torch.finfo(logits.dtype).tiny  # a prototype that nobody is near keeps no mass
    for iteration in range(iterations):
        v = 1 / (all_sum(mass).clamp_(min=tiny) * prototypes)
        if iteration + 1 < iterations:
            mass = passes.column_mass(out, v) / samples
        else:
            passes.normalise_(out, v)
    return out


def _passes(logits: Tensor, out: Tensor) -> ModuleType:
    """Compiled loops, where one thread does the work and memory lies as they read it."""
    rows = logits.is_contiguous() and out.is_contiguous()
    loops = one_thread("ssl_core.objectives.sinkhorn_loops", (logits, out)) if rows else None
    return loops or sinkhorn_passes


def _everywhere(largest: Tensor) -> Tensor:
    """The largest over all replicas."""
    if world_size() > 1:
        largest = largest.clone()
        torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
    return largest
