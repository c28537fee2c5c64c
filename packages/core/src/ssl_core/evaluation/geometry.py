"""How embeddings fill their space: the numbers that show collapse before accuracy does."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.evaluation.chunks import row_chunks

_NOISE = 16 * torch.finfo(torch.float64).eps


def effective_rank(features: Tensor) -> float:
    """exp(entropy) of the normalised singular values of `features [N, D]`, in [1, min(N, D)].

    RankMe (Garrido et al. 2023). Features are not centred, as there: a constant embedding has
    rank 1. An all-zero one is counted as 1 too. Non-finite features give nan.

    Taken from the eigenvalues of the smaller Gram matrix in float64, several times cheaper than
    singular values. Squaring loses those below 6e-8 of the largest, which count as zero: the rank
    of 256 x 256 features is exact to 1e-9 where none is that small, to 3e-4 where most are.
    """
    if not bool(torch.isfinite(features).all()):
        return math.nan
    x = features.double()
    squared = torch.linalg.eigvalsh(x @ x.T if x.shape[0] <= x.shape[1] else x.T @ x)
    # What lies below rounding of the largest is noise of either sign.
    squared = squared.where(squared > _NOISE * squared[-1], torch.zeros_like(squared))
    singular = squared.sqrt()
    total = singular.sum()
    if float(total) == 0:
        return 1.0
    p = singular / total
    return float(torch.exp(-torch.special.xlogy(p, p).sum()))


def alignment(z0: Tensor, z1: Tensor, *, alpha: float = 2.0) -> float:
    """Mean ||z0 - z1||^alpha of normalised positive pairs `[N, D]` (Wang & Isola 2020); 0 is best.

    A collapsed embedding also reaches 0: read it together with `uniformity`.
    """
    difference = F.normalize(z0.double(), dim=1) - F.normalize(z1.double(), dim=1)
    return float(difference.norm(dim=1).pow(alpha).mean())


def uniformity(z: Tensor, *, t: float = 2.0) -> float:
    """log of the mean Gaussian potential exp(-t ||x - y||^2) over distinct pairs of `z [N, D]`.

    Wang & Isola 2020, on normalised rows; lower is more uniform, 0 is collapsed, about
    -2 t for rows spread over a high-dimensional sphere.
    """
    n = len(z)
    if n < 2:
        raise ValueError(f"uniformity needs at least two rows, got {n}")
    z = F.normalize(z.double(), dim=1)
    total = 0.0
    for rows in row_chunks(n, n):
        squared = (2 - 2 * z[rows] @ z.T).clamp_(min=0)
        total += float((-t * squared).exp().sum())
    own = n  # every row met itself at distance 0
    return math.log(max(total - own, 1e-300) / (n * (n - 1)))


def feature_std(features: Tensor) -> float:
    """Mean standard deviation per dimension of normalised rows, times sqrt(D).

    Chen & He 2021's collapse gauge: 0 when collapsed, 1 for an isotropic embedding.
    """
    z = F.normalize(features.double(), dim=1)
    return float(z.std(dim=0, correction=0).mean()) * math.sqrt(features.shape[1])
