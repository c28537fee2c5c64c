"""SCGC (Kulatilleke et al. 2022): near nodes attract by how near they are, and form clusters.

    L = contrast * -mean_i log(sum_j g_ij e^(t s_ij) / sum_j e^(t s_ij) + 1e-8)
        + clustering * KL(p || q) + reconstruction * |x - decoder(z)|^2

s are cosines with a zero diagonal, g powers of the adjacency (from the views), and the
temperature t multiplies. q_ik ~ 1 / (1 + |z_i - mu_k|^2) are assignments to learned centres, p
their sharpened copy q^2 / sum_i q (DEC; Xie et al. 2016). SCGC* has no reconstruction and a
cumulative g. The release works on the whole graph, refreshes p once an epoch, starts from an
autoencoder and reports its best epoch against the labels; here p is of the batch, the centres
start by k-means on the first batch, and the last step counts. i are the nodes of a step, j those
of all replicas and accumulated parts, so that how a batch is divided changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import all_sum, gather, rank
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import mse
from ssl_core.objectives.precision import full_precision
from ssl_core.views import View, ViewPolicy
from ssl_graph.nodes.affinity import Walks

Reps = tuple[Tensor, Tensor, Tensor, Tensor]


class SCGC(Method):
    """An encoder of single nodes (an MLP) and cluster centres; the `scgc` views."""

    ready: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        clusters: int = 10,
        contrast: float = 1.0,
        clustering: float = 0.1,
        temperature: float = 0.25,
        reconstruction: float = 0.0,
        hidden: int = 256,
    ) -> None:
        super().__init__(encoder, views)
        if clusters < 2:
            raise ValueError(f"clusters must be at least 2, got {clusters}")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        inputs: int = encoder.token_dim  # type: ignore[assignment]
        self.centres = nn.Parameter(torch.zeros(clusters, width))
        self.register_buffer("ready", torch.tensor(False))
        self.decoder = MLPHead(width, inputs, hidden=hidden) if reconstruction else None
        self.contrast, self.clustering = contrast, clustering
        self.temperature, self.reconstruction = temperature, reconstruction
        self.walks: Walks | None = None

    def encode(self, views: Sequence[View]) -> Reps:
        (features,) = self.features(views[:1])
        z, x = features.pooled, views[0].data.x
        if not self.ready:
            self._start(gather(z.detach()))
        rebuilt = x if self.decoder is None else self.decoder(z)
        # The network is no representation: it is the same for every part of a batch.
        self.walks = views[0].params["walks"]
        return z, views[0].data.origin, x, rebuilt

    @torch.no_grad()
    def _start(self, z: Tensor) -> None:
        """Centres by k-means (20 starts); where there are fewer samples, also around them."""
        from sklearn.cluster import KMeans  # type: ignore[import-untyped]

        wanted = len(self.centres)
        rows = z.float().cpu()
        count = min(wanted, len(rows.unique(dim=0)))
        found = KMeans(count, n_init=20, random_state=0).fit(rows.numpy()).cluster_centers_
        start = torch.from_numpy(found).to(self.centres)
        again = start[torch.arange(wanted) % count]
        # Copies of one centre would stay together for ever.
        step = 1e-2 * z.float().std().clamp(min=1e-3).to(start)
        self.centres.copy_(again + step * (torch.arange(wanted, device=z.device) // count)[:, None])
        self.ready.fill_(True)

    def loss(self, reps: Reps) -> Loss:
        z, roots, x, rebuilt = reps
        assert self.walks is not None
        affinity = self.walks(roots, gather(roots))
        q = student_assignments(z, self.centres)
        parts = {
            "contrast": self.contrast
            * neighbour_contrast(z, affinity, temperature=self.temperature),
            "clustering": self.clustering * cluster_divergence(q),
        }
        if self.reconstruction:
            parts["reconstruction"] = self.reconstruction * mse(rebuilt, x)
        return Loss.of(parts)


@full_precision
def neighbour_contrast(z: Tensor, affinity: Tensor, *, temperature: float = 0.25) -> Tensor:
    """-mean_i log(sum_j g_ij e^(t s_ij) / sum_j e^(t s_ij) + 1e-8) (Ncontrast of Graph-MLP, SCGC).

    `z` `[b, D]` is normalised inside, `affinity` `[b, W b]` is g, its columns the rows of all W
    replicas. A row's similarity with itself is 0, so that it counts e^0. All vectors equal
    (collapsed), or t = 0, costs log(W b) for rows of g that add up to 1.
    """
    unit = F.normalize(z, dim=1)
    everyone = gather(unit)
    other = torch.ones(len(unit), len(everyone), dtype=unit.dtype, device=unit.device)
    other.diagonal(rank() * len(unit)).zero_()
    similar = (unit @ everyone.T) * other
    weight = (temperature * similar).exp()
    near = (affinity.to(weight.dtype) * weight).sum(1) / weight.sum(1)
    return -(near + 1e-8).log().mean()


@full_precision
def student_assignments(z: Tensor, centres: Tensor) -> Tensor:
    """q_ik ~ 1 / (1 + |z_i - mu_k|^2), rows add up to 1: `[B, D]`, `[K, D]` -> `[B, K]`."""
    squared = (z[:, None] - centres.to(z.dtype)[None]).square().sum(-1)
    near = 1 / (1 + squared)
    return near / near.sum(1, keepdim=True)


@full_precision
def cluster_divergence(q: Tensor) -> Tensor:
    """KL(p || q), mean over rows; p ~ q^2 / f is constant, f the cluster sizes of all replicas.

    0 where all centres coincide.
    """
    with torch.no_grad():
        sharp = q.square() / all_sum(q.sum(0))
        p = sharp / sharp.sum(1, keepdim=True)
    return (p * (p.clamp(min=1e-12).log() - q.log())).sum(1).mean()
