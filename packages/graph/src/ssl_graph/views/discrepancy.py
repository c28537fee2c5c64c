"""Graphs moved from themselves by a known number of edges (D-SLA; Kim et al., NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.batch import graphs_of
from ssl_graph.views.ops import edge_keys, hops_from_centre, lowest, node_keys


def move_edges(
    graphs: GraphBatch, rng: Rng, *, region: Tensor, share: float
) -> tuple[GraphBatch, Tensor]:
    """Deletes m undirected edges inside `region` (bool `[N]`) and adds m others there.

    m is `share` of the region's edges, at least one, and no more than it has edges or missing
    pairs. Deleted edges are not added again, so the edge sets differ in exactly 2m edges. Added
    edges take the features of a random edge of their graph. Returns the graphs and m, int64 `[G]`
    (0 where nothing can be moved).
    """
    ends = graphs.local[graphs.edge_index]
    source, target = graphs.edge_index
    once = (ends[0] < ends[1]) & region[source] & region[target]
    groups = len(graphs)
    present = torch.bincount(graphs.edge_batch[once], minlength=groups)
    graph, first, second = _missing_pairs(graphs, region)
    absent = torch.bincount(graph, minlength=groups)
    moves = (present.double() * share + 1e-6).floor().to(torch.int64).clamp(min=1)
    moves = moves.minimum(present).minimum(absent)

    drawn = edge_keys(rng, graphs).uniform("delete", dtype=torch.float64)
    score = torch.where(once, drawn, torch.inf)
    gone = lowest(graphs.edge_batch, score, moves) & once
    codes = source * graphs.num_nodes + target
    deleted = torch.cat([codes[gone], (target * graphs.num_nodes + source)[gone]])
    left = graphs.keep_edges(~torch.isin(codes, deleted))

    pair = rng[graph].fold("add", first, second).uniform("score", dtype=torch.float64)
    chosen = lowest(graph, pair, moves)
    graph, first, second = graph[chosen], first[chosen], second[chosen]
    start = graphs.ptr[graph]
    added = torch.stack([first + start, second + start])
    attr = left.edge_attr
    if attr is not None and graphs.edge_attr is not None:
        counts = torch.bincount(graphs.edge_batch, minlength=groups)
        by_graph = graphs.edge_batch.argsort(stable=True)
        pick = rng[graph].fold("features", first, second).integers("edge", high=counts[graph])
        taken = graphs.edge_attr[by_graph[(counts.cumsum(0) - counts)[graph] + pick]]
        attr = torch.cat([attr, taken, taken])
    edges = torch.cat([left.edge_index, added, added.flip(0)], dim=1)
    return replace(left, edge_index=edges, edge_attr=attr), moves


def _missing_pairs(graphs: GraphBatch, region: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(graph, first, second) local nodes of every pair in the region that no edge joins."""
    inside, _ = graphs.dense(region)
    open_pairs = inside[:, :, None] & inside[:, None, :]
    ends = graphs.local[graphs.edge_index]
    open_pairs[graphs.edge_batch, ends[0], ends[1]] = False
    open_pairs[graphs.edge_batch, ends[1], ends[0]] = False
    above = torch.ones_like(open_pairs[0]).triu(1)
    graph, first, second = (open_pairs & above).nonzero(as_tuple=True)
    return graph, first, second


class Discrepancies:
    """The graph, `steps` perturbations of rising strength around one centre, and a strong one.

    Perturbation i moves `i * share` of the edges of the ball of `hops` hops around a random node
    (or the root); the strong one `strong` of all edges (0 leaves it out). Every candidate, the
    original too, has the features of `node_mask` of the ball's nodes set to zero, drawn anew.
    `params["distance"]` (int64 `[G]`) is the number of edges moved; role "strong" marks the last.
    """

    def __init__(
        self, *, steps: int, share: float, strong: float, hops: int, node_mask: float
    ) -> None:
        if steps < 1 or hops < 1:
            raise ValueError(f"steps and hops must be at least 1, got {steps} and {hops}")
        for name, value in (("share", share), ("strong", strong), ("node_mask", node_mask)):
            if not 0 <= value <= 1 or (name == "share" and steps * value > 1):
                raise ValueError(f"{name} must lie in [0, 1] (share in [0, 1/steps]), got {value}")
        self.steps, self.share, self.strong = steps, share, strong
        self.hops, self.node_mask = hops, node_mask

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        graphs = graphs_of(batch.data, rng)
        ball = hops_from_centre(graphs, rng)[1] <= self.hops
        zero = torch.zeros(len(graphs), dtype=torch.int64, device=graphs.x.device)
        candidates = [(graphs, zero, "global")]
        for i in range(1, self.steps + 1):
            own = rng.fold("move", i)
            moved, count = move_edges(graphs, own, region=ball, share=i * self.share)
            candidates.append((moved, count, "global"))
        if self.strong:
            everywhere = torch.ones_like(ball)
            own = rng.fold("move", "strong")
            moved, count = move_edges(graphs, own, region=everywhere, share=self.strong)
            candidates.append((moved, count, "strong"))
        views = []
        for number, (candidate, count, role) in enumerate(candidates):
            key = rng.fold("candidate", number)
            shown = self._masked(candidate, ball, key)
            views.append(View(shown, key, role=role, params={"distance": count}))
        return views

    def _masked(self, graphs: GraphBatch, ball: Tensor, rng: Rng) -> GraphBatch:
        score = node_keys(rng, graphs).uniform("mask", dtype=torch.float64)
        score = torch.where(ball, score, torch.inf)
        size = torch.bincount(graphs.batch[ball], minlength=len(graphs))
        count = (size.double() * self.node_mask + 1e-6).floor().to(torch.int64)
        hidden = lowest(graphs.batch, score, count)
        return graphs.with_x(graphs.x.masked_fill(hidden[:, None], 0))

    def plain(self, batch: Batch) -> GraphBatch:
        """The graphs as they are, or fixed neighbourhoods of nodes."""
        return graphs_of(batch.data)


def dsla(
    spec: Mapping[str, Any],
    *,
    steps: int = 3,
    share: float = 0.2,
    strong: float = 0.8,
    hops: int = 3,
    node_mask: float = 0.8,
) -> Discrepancies:
    """The released settings for molecules."""
    if spec.get("directed"):
        raise ValueError("moves undirected edges; set data.options.directed to false")
    return Discrepancies(steps=steps, share=share, strong=strong, hops=hops, node_mask=node_mask)
