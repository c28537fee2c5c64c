"""LVM-Med (Nguyen et al., NeurIPS 2023): match the graphs that two views of some images make.

    L = mean over groups of the Hamming distance of v from the identity,
    v = argmin over permutations of <c, v> + <d, v x v>

The rows of a batch are cut into groups; in each the k nearest of every image make a directed graph
a view, and two graph convolutions refine its nodes. c holds likenesses of nodes (weight `alpha`)
and distances of places matched by features and by position (1 - `alpha`, as in VICRegL), d
likenesses of edges (`ssl_core.objectives.graph_matching`). `noise` above 0 is the paper's implicit
maximum-likelihood gradient, 0 the interpolation of the released code, which keeps VICRegL's terms
of nodes and places beside the matching: `vicregl` is their weight, 0 the paper's objective.

Beyond the release: messages are added to nodes (`Messages` says why); distances are means over
places of unit vectors, where it sums raw ones; places are compared with their matches, where it
takes each view's own best ones; the gradient of a group does not shrink with the number of groups;
rows that fill no group join one, and are not dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.methods.vicregl import local_tokens, places
from ssl_core.networks.dropout import KeyedDropout, dropout_keys
from ssl_core.networks.heads import MLPHead
from ssl_core.objectives import best_matches, graph_matching, neighbours, vicregl
from ssl_core.rng import Rng
from ssl_core.views import View, ViewPolicy


@dataclass
class Reps:
    """Of two views: nodes `[B, D]`, projected places `[B, N, D']`, where those lie; and keys."""

    nodes: list[Tensor]
    maps: list[Tensor]
    where: list[Tensor]
    key: Tensor


class Messages(nn.Module):
    """x <- x + W x + V (mean of a node's neighbours), twice; ReLU and dropout before the second.

    W and V start at zero: every node is itself at first. Neighbours of neighbours are most of a
    small group, and nodes that hold them, or have lost their signs to ReLU, are so alike that no
    pair is matched; what matching asks of them then makes them more alike.
    """

    def __init__(self, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.own = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))
        self.near = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(2))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.drop = KeyedDropout(dropout, stream="messages")

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """`[G, n, D]` and bool `[G, n, n]` to `[G, n, D]`."""
        x = nodes
        shares = F.normalize(edges.to(x.dtype), p=1.0, dim=2)
        for layer, (own, near) in enumerate(zip(self.own, self.near, strict=True)):
            heard = x if layer == 0 else self.drop(F.relu(x).flatten(0, 1)).view_as(x)
            x = x + own(heard) + near(shares @ heard)
        return x


class LVMMed(Method):
    """Any encoder; with `alpha` below 1 it needs a map, and views that know where they lie.

    Where views of a sample are hardly more alike than samples are, the matching alone pulls all
    nodes together; `vicregl` holds them apart.
    """

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        hidden: int = 1024,
        dim: int = 1024,
        local_hidden: int = 512,
        local_dim: int = 512,
        layers: int = 3,
        alpha: float = 0.75,
        group: int = 10,
        near: int = 5,
        edge_weight: float = 0.5,
        margin: float = 1.0,
        jump: float = 80.0,
        noise: float = 0.0,
        matches: int = 20,
        dropout: float = 0.5,
        vicregl: float = 0.0,
    ) -> None:
        super().__init__(encoder, views)
        if not 0 <= alpha <= 1 or group < 2 or near < 1 or noise < 0 or vicregl < 0:
            raise ValueError(
                "need 0 <= alpha <= 1, group >= 2, near >= 1, noise >= 0 and vicregl >= 0, got "
                f"alpha={alpha}, group={group}, near={near}, noise={noise}, vicregl={vicregl}"
            )
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.projector = MLPHead(width, dim, hidden=hidden, layers=layers)
        self.messages = Messages(dim, dropout=dropout)
        self.local_projector: MLPHead | None = None
        if alpha < 1:
            self.local_projector = MLPHead(width, local_dim, hidden=local_hidden, layers=layers)
        self.alpha, self.group, self.near, self.matches = alpha, group, near, matches
        self.edge_weight, self.margin, self.jump, self.noise = edge_weight, margin, jump, noise
        self.vicregl = vicregl

    def encode(self, views: Sequence[View]) -> Reps:
        first, second = views
        features = self.features([first, second], joint=False)
        maps, where = [], []
        for view, f in zip((first, second), features, strict=True):
            if self.local_projector is not None:
                found = local_tokens(f)
                projected = self.local_projector(found.flatten(0, 1))
                maps.append(projected.unflatten(0, found.shape[:2]))
                where.append(places(view, f.grid))
        return Reps([self.projector(f.pooled) for f in features], maps, where, first.rng.key)

    def loss(self, reps: Reps) -> Loss:
        count = len(reps.key)
        # Sizes of groups differ by one at most.
        cuts = torch.arange(count).tensor_split(max(1, round(count / self.group)))
        losses = [self._of_group(reps, slice(int(c[0]), int(c[-1]) + 1)) for c in cuts]
        loss = torch.stack(losses).mean()
        right = 1 - loss.detach() / (2 * count / len(cuts))
        parts = {"matching": loss}
        if self.vicregl:
            both = (self.matches, self.matches)
            apart = vicregl(reps.nodes, reps.maps, reps.where, alpha=self.alpha, matches=both)
            parts["vicregl"] = self.vicregl * apart
        return Loss.of(parts, {"accuracy": right})

    def _of_group(self, reps: Reps, rows: slice) -> Tensor:
        rng = Rng(reps.key[rows])
        wide = torch.promote_types(reps.nodes[0].dtype, torch.float32)
        x, y = (nodes[rows].to(wide)[None] for nodes in reps.nodes)
        edges = [neighbours(nodes, self.near) for nodes in (x, y)]
        refined = []
        for number, (nodes, e) in enumerate(zip((x, y), edges, strict=True)):
            with dropout_keys(rng.fold("graph", number)):
                refined.append(self.messages(nodes, e))
        costs = None
        if reps.maps:
            maps, where = ([part[rows] for part in both] for both in (reps.maps, reps.where))
            costs = (1 - self.alpha) * local_costs(*maps, *where, matches=self.matches)[None]
        return graph_matching(
            *refined,
            *edges,
            costs=costs,
            vertex_weight=self.alpha,
            edge_weight=self.edge_weight,
            margin=self.margin,
            jump=self.jump,
            noise=self._gumbel(rng)[None] if self.noise else None,
        )

    def _gumbel(self, rng: Rng) -> Tensor:
        unit = rng.uniform("gumbel", len(rng), low=1e-7)
        return -self.noise * (-unit.log()).log()


def local_costs(a: Tensor, b: Tensor, at: Tensor, bt: Tensor, *, matches: int) -> Tensor:
    """How far image i's places in one view are from the matches of j's in the other: `[n, n]`.

    `a`, `b` `[n, N, D]` are maps and `at`, `bt` `[n, N, axes]` where their places lie. Places of a
    are matched within each image, all by features and the best `matches` by position; the cost is
    the mean distance of unit vectors, over places and both ways of matching.
    """
    a, b = F.normalize(a.float(), dim=-1), F.normalize(b.float(), dim=-1)
    by_feature = torch.cdist(a.detach(), b.detach())
    by_place = torch.cdist(at.to(a.dtype), bt.to(a.dtype))
    total = a.new_zeros(len(a), len(a))
    for distance, count in ((by_feature, None), (by_place, matches)):
        own, match = best_matches(a, b, distance, count=count)  # [n, M, D]
        apart = (own[:, None] - match[None]).square().sum(-1)
        total = total + (apart + 1e-6).sqrt().mean(-1)
    return total / 2
