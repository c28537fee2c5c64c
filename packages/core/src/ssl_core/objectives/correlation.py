"""Correlation analysis between views: dimensions agree across views and differ within one."""

from __future__ import annotations

from torch import Tensor

from ssl_core.distributed import all_sum
from ssl_core.objectives.cross_product import centred, cross_product, row_count
from ssl_core.objectives.precision import full_precision
from ssl_core.objectives.redundancy import _check_pair


@full_precision
def cca_ssg(z0: Tensor, z1: Tensor, *, lambd: float = 1e-3, eps: float = 1e-8) -> Tensor:
    """-tr(Z0' Z1) / N + lambd * sum over views of ||I - Zk' Zk / N||^2 (Zhang et al. 2021, eq. 4).

    Z are projections `[B, D]` standardised over the batch of all replicas with the unbiased
    variance plus `eps` (the release adds nothing and divides by zero where a column is constant).
    Two equal whitened views cost -D (N - 1) / N plus a small term; constant (collapsed)
    embeddings cost 2 lambd D.
    """
    _check_pair("cca_ssg", z0, z1)
    count = row_count(z0)
    units, decorrelation = [], z0.new_zeros(())
    for z in (z0, z1):
        x = centred(z)
        unit = x / (all_sum(x.square().sum(0)) / (count - 1) + eps).sqrt()
        diagonal, norm = cross_product(unit, unit)
        decorrelation += norm / count**2 - 2 * diagonal.sum() / count + unit.shape[1]
        units.append(unit)
    agreement = all_sum((units[0] * units[1]).sum()) / count
    return lambd * decorrelation - agreement
