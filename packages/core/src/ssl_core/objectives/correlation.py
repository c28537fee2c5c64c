"""Correlation analysis between views: dimensions agree across views and differ within one."""

from __future__ import annotations

from torch import Tensor

from ssl_core.distributed import all_sum
from ssl_core.objectives.precision import full_precision
from ssl_core.objectives.redundancy import _check_pair, _moments, _product_norm


@full_precision
def cca_ssg(z0: Tensor, z1: Tensor, *, lambd: float = 1e-3, eps: float = 1e-8) -> Tensor:
    """-tr(Z0' Z1) / N + lambd * sum over views of ||I - Zk' Zk / N||^2 (Zhang et al. 2021, eq. 4).

    Z are projections `[B, D]` standardised over the batch of all replicas with the unbiased
    variance plus `eps` (the release adds nothing and divides by zero where a column is constant).
    Two equal whitened views cost -D (N - 1) / N plus a small term; constant (collapsed)
    embeddings cost 2 lambd D.
    """
    _check_pair("cca_ssg", z0, z1)
    unit, decorrelation = [], z0.new_zeros(())
    for z in (z0, z1):
        centred, squares, count = _moments(z)
        scaled = centred / (squares / (count - 1) + eps).sqrt()
        diagonal = all_sum(scaled.square().sum()) / count
        norm = _product_norm(scaled, scaled, count) / count**2
        decorrelation = decorrelation + norm - 2 * diagonal + z.shape[1]
        unit.append(scaled)
    agreement = all_sum((unit[0] * unit[1]).sum()) / count
    return lambd * decorrelation - agreement
