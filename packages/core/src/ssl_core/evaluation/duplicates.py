"""Records that show nearly the same thing, found by the cosine of their centred raw features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 1024


def near_duplicates(features: Tensor, *, threshold: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, cosine) with i < j and cosine >= `threshold`, the most alike first.

    `features` is `[N, R]`; their mean over the records is taken off before cosines are formed, so
    that what all records share does not count as likeness. Rows equal to the mean are alike only
    to each other. Costs N^2 R multiplications.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")
    centred = features.double() - features.double().mean(0)
    unit = F.normalize(centred, dim=1)
    still = centred.norm(dim=1) <= 1e-9 * max(1.0, float(features.double().norm(dim=1).max()))
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(unit), _BLOCK):
        block = unit[start : start + _BLOCK]
        cosine = block @ unit.T  # [b, N]
        cosine[still[start : start + _BLOCK]] = still.to(cosine.dtype)
        rows = torch.arange(start, start + len(block)).unsqueeze(1)
        alike = (cosine >= threshold - 1e-12) & (rows < torch.arange(len(unit)))
        at = alike.nonzero()
        values = cosine[alike].clamp(max=1.0).tolist()
        found += [(start + i, j, value) for (i, j), value in zip(at.tolist(), values, strict=True)]
    return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))
