"""A running covariance that embeddings are pushed away from (TiCo: Zhu et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import all_mean
from ssl_core.objectives.precision import full_precision


@full_precision
def tico(z0: Tensor, z1: Tensor, covariance: Tensor, *, rho: float = 8.0) -> Tensor:
    """1 - mean cos(z0, z1) + rho * mean z0' C z0 with unit z0 (TiCo, eq. 6).

    `z0` `[B, D]` are the student's embeddings, `z1` the momentum encoder's, which receive no
    gradient; C `[D, D]` is `RunningCovariance.blended(z0)`. Collapsed at step t (from 1):
    rho (1 - momentum^t); evenly spread: 1/D of that.
    """
    if z0.dim() != 2 or z0.shape != z1.shape or covariance.shape != (z0.shape[1],) * 2:
        raise ValueError(
            f"tico: two views [B, D] and a covariance [D, D] are needed, got {tuple(z0.shape)}, "
            f"{tuple(z1.shape)} and {tuple(covariance.shape)}"
        )
    a, b = F.normalize(z0, dim=1), F.normalize(z1.detach(), dim=1)
    contrast = ((a @ covariance.detach().to(a.dtype)) * a).sum(1).mean()
    return 1 - (a * b).sum(1).mean() + rho * contrast


class RunningCovariance(nn.Module):
    """C <- momentum C + (1 - momentum) z'z / N of unit embeddings over all replicas' rows.

        new = self.covariance.blended(z0)
        loss = tico(z0, z1, new)
        ...                                        # after the step
        self.covariance.update(new, finite=step.finite)

    `covariance` is a buffer `[dim, dim]`, zero at the start. No gradient.
    """

    covariance: Tensor

    def __init__(self, dim: int, *, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"covariance momentum must lie in [0, 1], got {momentum}")
        self.momentum = momentum
        self.register_buffer("covariance", torch.zeros(dim, dim))

    @torch.no_grad()
    def blended(self, z: Tensor) -> Tensor:
        """The covariance with the batch `[B, D]` mixed in; the stored one stays."""
        unit = F.normalize(z.to(self.covariance.dtype), dim=1)
        own = all_mean(unit.T @ unit / unit.shape[0])
        return self.momentum * self.covariance + (1 - self.momentum) * own

    @torch.no_grad()
    def update(self, new: Tensor, *, finite: Tensor | None = None) -> None:
        """Stores `new`; where `finite` (0-dim bool) is False nothing changes."""
        self.covariance.copy_(new if finite is None else torch.where(finite, new, self.covariance))

    def extra_repr(self) -> str:
        return f"dim={self.covariance.shape[0]}, momentum={self.momentum}"
