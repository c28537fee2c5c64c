"""Nodes without their edges, with how near they are on the network: SCGC's only use of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.affinity import Walks
from ssl_graph.nodes.batch import NodeBatch
from ssl_graph.views.ops import OPS


class AffinityView:
    """One view: the nodes of the batch alone; `params["walks"]` tells how near any are (`Walks`).

    Feature columns of each node are zero with probability `feature_mask`.
    """

    def __init__(self, *, power: int, cumulative: bool, feature_mask: float) -> None:
        if not 0 <= feature_mask < 1:
            raise ValueError(f"feature_mask must lie in [0, 1), got {feature_mask}")
        self.feature_mask = feature_mask
        if power < 1:
            raise ValueError(f"power must be at least 1, got {power}")
        self.power, self.cumulative = power, cumulative

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        walks = Walks(_nodes(batch).network, self.power, self.cumulative)
        graphs, mask = self.plain(batch), OPS["feature_mask"]
        if self.feature_mask:
            graphs = mask.apply(graphs, mask.sample(rng, graphs, self.feature_mask))
        return [View(graphs, rng, params={"walks": walks})]

    def plain(self, batch: Batch) -> GraphBatch:
        """Each node as a graph of its own, without edges."""
        nodes = _nodes(batch)
        place = torch.arange(len(nodes) + 1, device=nodes.roots.device)
        return GraphBatch(
            nodes.network.x[nodes.roots],
            nodes.roots.new_zeros(2, 0),
            place[:-1],
            place,
            None if nodes.network.edge_attr is None else nodes.network.edge_attr[:0],
            directed=nodes.network.directed,
            rooted=True,
            origin=nodes.roots,
            pool=nodes.network.x,
        )


def _nodes(batch: Batch) -> NodeBatch:
    if not isinstance(batch.data, NodeBatch):
        raise UserError("views scgc: work on the nodes of one big graph, not on a collection")
    return batch.data


def scgc(
    spec: Mapping[str, Any],
    *,
    power: int = 2,
    cumulative: bool = False,
    feature_mask: float = 0.0,
) -> AffinityView:
    """SCGC (Kulatilleke et al. 2022): A^power; with `cumulative` SCGC*'s A + .. + A^power."""
    return AffinityView(power=power, cumulative=cumulative, feature_mask=feature_mask)
