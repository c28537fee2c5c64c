"""Two-dimensional pictures of embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def plane(features: Tensor) -> Tensor:
    """Rows `[N, D]`, normalised and centred, on their first two principal axes: `[N, 2]`.

    Signs are fixed (the largest loading of an axis is positive), so that pictures repeat.
    """
    if len(features) == 0:
        return features.new_zeros(0, 2)
    x = F.normalize(torch.nan_to_num(features.double()), dim=1)
    x = x - x.mean(dim=0)
    _, _, axes = torch.linalg.svd(x, full_matrices=False)  # [min(N, D), D]
    axes = F.pad(axes, (0, 0, 0, max(0, 2 - len(axes))))[:2]
    sign = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    return (x @ (axes * sign).T).float()
