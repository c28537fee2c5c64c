"""Two-dimensional maps of embeddings."""

from __future__ import annotations

import importlib.util
import warnings

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


def has_umap() -> bool:
    """Whether `umap_plane` can be used here (the extra `umap` is installed)."""
    return importlib.util.find_spec("umap") is not None


def umap_plane(features: Tensor, *, seed: int = 0) -> Tensor:
    """Rows `[N, D]` in the plane by UMAP (McInnes et al. 2018) on cosine distances: `[N, 2]`.

    15 neighbours, at most N - 1; one thread, so that the same seed gives the same map. Raises
    `ImportError` without umap-learn; fewer than four rows fall back on their principal axes, where
    UMAP has nothing to unfold.
    """
    if len(features) < 4:
        return plane(features)
    rows = F.normalize(torch.nan_to_num(features.float().cpu()), dim=1).numpy()
    near = min(15, len(rows) - 1)
    with warnings.catch_warnings():  # of a missing Tensorflow, of its seed, of small graphs
        warnings.simplefilter("ignore")
        from umap import UMAP

        # From places at random where the graph is too small for its spectrum.
        init = "spectral" if len(rows) > 2 * near else "random"
        fitted = UMAP(n_neighbors=near, metric="cosine", init=init, random_state=seed, n_jobs=1)
        return torch.from_numpy(fitted.fit_transform(rows)).float()
