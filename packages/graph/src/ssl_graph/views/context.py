"""Substructure and context of a node: what context prediction compares (Hu et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.batch import graphs_of
from ssl_graph.views.ops import hops_from_centre


class ContextPairs:
    """Two views of a centre: the ball of `hops` hops, and the ring `inner` < distance <= `outer`.

    The centre is a random node, or the root of a neighbourhood. Nodes of the ring within the ball
    are the overlap: `params["overlap"]` (bool `[G, Nmax]`) marks them in the context view.
    `params["valid"]` (bool `[G]`) is False where the ring or the overlap is empty; such a context
    is the centre alone and counts for nothing.
    """

    def __init__(self, *, hops: int, inner: int, outer: int) -> None:
        if not 1 <= inner < hops <= outer:
            raise ValueError(
                f"must have 1 <= inner < hops <= outer, got inner={inner}, hops={hops}, "
                f"outer={outer}"
            )
        self.hops, self.inner, self.outer = hops, inner, outer

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        graphs = graphs_of(batch.data, rng)
        centre, distance = hops_from_centre(graphs, rng)
        ring = (distance > self.inner) & (distance <= self.outer)
        overlap = ring & (distance <= self.hops)
        valid = torch.zeros_like(centre).index_add_(0, graphs.batch, overlap.to(centre.dtype)) > 0
        shown = ring & valid[graphs.batch]
        shown[centre[~valid]] = True
        ball = graphs.rooted_at(centre)
        inside = graphs.with_x(distance[:, None]).rooted_at(centre).x[:, 0] <= self.hops
        context = graphs.keep_nodes(shown)
        marked = context.dense(overlap[shown])[0]
        return [
            View(ball.keep_nodes(inside), rng.fold("substructure")),
            View(
                replace(context, rooted=False),
                rng.fold("context"),
                role="context",
                params={"overlap": marked, "valid": valid},
            ),
        ]

    def plain(self, batch: Batch) -> GraphBatch:
        """The graphs as they are, or fixed neighbourhoods of nodes."""
        return graphs_of(batch.data)


def context(
    spec: Mapping[str, Any], *, hops: int = 3, inner: int = 2, outer: int = 5
) -> ContextPairs:
    """The paper's ball has as many hops as the encoder has layers, inner = hops - 1 and
    outer = inner + 3."""
    return ContextPairs(hops=hops, inner=inner, outer=outer)
