"""D-SLA (Kim et al., NeurIPS 2022): tell a graph from its perturbations, by how far they are.

    L = CE(scores of the candidates, the original)
        + edit * mean over pairs i < j of (|g_i - g_0| / d_i - |g_j - g_0| / d_j)^2
        + margin_weight * mean over i and other graphs of relu(margin + |g_0 - g_i| - |g_0 - g'_0|)

g_0 is the original's vector, g_i a perturbation's, d_i the number of edges moved, g'_0 another
graph of the batch; the strong perturbation has no part in the margin. The release counts d with
edges it deleted and added again; here d is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.distributed import gather, rank
from ssl_core.methods.base import Loss, Method
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import masked_mean
from ssl_core.objectives.precision import full_precision
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy
from ssl_graph.graph import GraphBatch

Reps = tuple[Tensor, Tensor, Tensor]


class DSLA(Method):
    """An encoder and a score; the `dsla` views."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 300,
        edit: float = 0.7,
        margin_weight: float = 0.5,
        margin: float = 5.0,
    ) -> None:
        super().__init__(encoder, views)
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.score = MLPHead(width, 1, hidden=hidden, layers=2, norm="none")
        self.edit, self.margin_weight, self.margin = edit, margin_weight, margin
        self.strong = False

    def encode(self, views: Sequence[View]) -> Reps:
        self.strong = views[-1].role == "strong"
        # One forward for all candidates: statistics of their own would tell them apart.
        graphs = GraphBatch.cat([view.data for view in views])
        (features,) = self.features([View(graphs, Rng.cat([view.rng for view in views]))])
        vectors = features.pooled.unflatten(0, (len(views), -1)).transpose(0, 1)  # [G, K, D]
        distance = torch.stack([view.params["distance"] for view in views], dim=1)
        return vectors, self.score(vectors)[..., 0], distance

    def loss(self, reps: Reps) -> Loss:
        vectors, scores, distance = reps
        weak = vectors[:, : -1 if self.strong else None]
        moved = distance[:, : weak.shape[1]] > 0
        return Loss.of(
            {
                "discrimination": discrimination(scores, distance),
                "edit_distance": self.edit * edit_ratio(vectors, distance),
                "margin": self.margin_weight * other_margin(weak, moved, margin=self.margin),
            }
        )


@full_precision
def discrimination(scores: Tensor, distance: Tensor) -> Tensor:
    """Cross-entropy of the first of K candidates `[G, K]`; equal scores cost log K.

    Candidates in which no edge could be moved are the original and take no part.
    """
    other = torch.arange(scores.shape[1], device=scores.device) > 0
    scores = scores.masked_fill((distance == 0) & other, -torch.inf)
    return F.cross_entropy(scores, torch.zeros_like(distance[:, 0]))


@full_precision
def edit_ratio(vectors: Tensor, distance: Tensor) -> Tensor:
    """Squared differences of |g_i - g_0| / d_i over pairs of perturbations, mean.

    `vectors` `[G, K, D]` with the original first, `distance` `[G, K]`. 0 when distances are
    proportional to the edits, whatever the factor, and when all vectors coincide (collapsed).
    """
    ratio = _norm(vectors[:, 1:] - vectors[:, :1]) / distance[:, 1:].clamp(min=1)
    moved = distance[:, 1:] > 0
    pair = torch.ones_like(ratio[0]).expand(ratio.shape[1], -1).triu(1) > 0
    both = moved[:, :, None] & moved[:, None, :] & pair
    return masked_mean((ratio[:, :, None] - ratio[:, None, :]).square(), both)


@full_precision
def other_margin(vectors: Tensor, moved: Tensor, *, margin: float) -> Tensor:
    """mean relu(margin + |g_0 - g_i| - |g_0 - g'_0|) over perturbations i and other graphs.

    `vectors` `[G, K, D]` with the original first, `moved` bool `[G, K]`; originals of all replicas
    are others. All vectors coinciding costs `margin`.
    """
    original = vectors[:, 0]
    near = _norm(vectors[:, 1:] - original[:, None])  # [G, K - 1]
    everyone = gather(original)
    far = _norm(original[:, None] - everyone[None])  # [G, W G]
    first = rank() * len(original)
    own = torch.arange(first, first + len(original), device=vectors.device)
    others = torch.arange(len(everyone), device=vectors.device) != own[:, None]
    cost = torch.relu(margin + near[:, :, None] - far[:, None, :])
    return masked_mean(cost, moved[:, 1:, None] & others[:, None])


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm over the last axis, with slope 0 at 0."""
    squared = x.square().sum(-1)
    tiny = torch.finfo(squared.dtype).tiny
    return torch.where(squared > tiny, squared.clamp(min=tiny).sqrt(), torch.zeros_like(squared))
