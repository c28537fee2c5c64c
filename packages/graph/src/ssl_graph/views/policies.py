"""View policies: which operations make the views of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.batch import graphs_of
from ssl_graph.views.ops import OPS

Plan = Mapping[str, float]
"""Operation name -> share dropped or masked, in the order of application."""


class GraphViews:
    """One view per plan. With `choose="one"` each graph gets one operation of the plan.

    Provenance in `View.params`: `kept` (bool `[G, Nmax]`, which of the graph's own nodes are
    left), `nodes_dropped` and `edges_dropped` (int64 `[G]`; an undirected edge counts twice, as
    it is listed, and added edges are taken off) and `op` (int64 `[G]`: place in the plan of the
    chosen operation, -1 for all).
    """

    def __init__(self, plans: Sequence[Plan], *, choose: Literal["all", "one"] = "all") -> None:
        for plan in plans:
            for name, share in plan.items():
                if name not in OPS:
                    raise ValueError(f"{name!r} is not an operation on graphs: {sorted(OPS)}")
                if not 0 <= share <= (name == "feature_shuffle") + 0.999999:
                    raise ValueError(f"{name}: share must lie in [0, 1), got {share}")
        if choose not in ("all", "one"):
            raise ValueError(f"choose must be 'all' or 'one', got {choose!r}")
        self.plans = [dict(plan) for plan in plans]
        self.choose = choose

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        keys = [rng.fold("view", v) for v in range(len(self.plans))]
        return [
            self._view(graphs_of(batch.data, key), plan, key)
            for plan, key in zip(self.plans, keys, strict=True)
        ]

    def plain(self, batch: Batch) -> GraphBatch:
        """The graphs as they are, or fixed neighbourhoods of nodes."""
        return graphs_of(batch.data)

    def _view(self, graphs: GraphBatch, plan: Plan, rng: Rng) -> View:
        chosen = torch.full_like(rng.key, -1)
        if self.choose == "one" and plan:
            chosen = rng.integers("operation", high=len(plan))
        rows = torch.arange(graphs.num_nodes, device=graphs.x.device)
        view = graphs
        for place, (name, share) in enumerate(plan.items()):
            amount: float | Tensor = share
            if self.choose == "one":
                amount = torch.where(chosen == place, share, 0.0)
            if share > 0:
                op = OPS[name]
                params = op.sample(rng.fold(name), view, amount)
                if name in ("node_drop", "subgraph"):
                    rows = rows[params]
                view = op.apply(view, params)
        return View(view, rng, params=_provenance(graphs, view, rows, chosen))


def _provenance(
    before: GraphBatch, after: GraphBatch, rows: Tensor, chosen: Tensor
) -> dict[str, Any]:
    """`rows` are the nodes of `before` that are left in `after`."""
    left = torch.zeros(before.num_nodes, dtype=torch.bool, device=rows.device)
    left[rows] = True
    groups = len(before)
    edges = [torch.bincount(g.edge_batch, minlength=groups) for g in (before, after)]
    return {
        "kept": before.dense(left)[0],
        "nodes_dropped": before.sizes - after.sizes,
        "edges_dropped": edges[0] - edges[1],
        "op": chosen,
    }


def graphcl(
    spec: Mapping[str, Any],
    *,
    node_drop: float = 0.1,
    edge_drop: float = 0.1,
    edge_add: float = 0.0,
    node_mask: float = 0.1,
    feature_mask: float = 0.0,
    subgraph: float = 0.2,
    choose: Literal["all", "one"] = "one",
    anchor: Literal["view", "plain"] = "view",
) -> GraphViews:
    """GraphCL (You et al., NeurIPS 2020): two views, each graph under one random operation.

    Every option is the share dropped or masked; 0 takes an operation out. `choose="all"` applies
    all of them in turn. `anchor="plain"` leaves the first view untouched, as the released code
    does. By default edges are only dropped, as in the released code for TU data; `edge_add` also
    adds some, as in the paper.
    """
    if anchor not in ("view", "plain"):
        raise ValueError(f"anchor must be 'view' or 'plain', got {anchor!r}")
    plan = {
        "subgraph": subgraph,
        "node_drop": node_drop,
        "edge_drop": edge_drop,
        "edge_add": edge_add,
        "node_mask": node_mask,
        "feature_mask": feature_mask,
    }
    active = {name: share for name, share in plan.items() if share}
    return GraphViews([{} if anchor == "plain" else active, active], choose=choose)


def grace(
    spec: Mapping[str, Any],
    *,
    edge_drop: Sequence[float] = (0.2, 0.4),
    feature_mask: Sequence[float] = (0.3, 0.4),
) -> GraphViews:
    """GRACE (Zhu et al. 2020): two views by edge dropping and feature-column masking.

    Each option has one share per view; the defaults are the paper's for Cora.
    """
    for name, shares in (("edge_drop", edge_drop), ("feature_mask", feature_mask)):
        if isinstance(shares, (int, float)) or len(shares) != 2:
            raise ValueError(f"{name} must be two shares, one a view, got {shares!r}")
    return GraphViews(
        [
            {"edge_drop": edge, "feature_mask": mask}
            for edge, mask in zip(edge_drop, feature_mask, strict=True)
        ]
    )


def none(spec: Mapping[str, Any]) -> GraphViews:
    """One untouched view, for masked methods."""
    return GraphViews([{}])


def subgraph(spec: Mapping[str, Any], *, share: float = 0.4) -> GraphViews:
    """One random connected part of each graph, without the `share` of its nodes."""
    return GraphViews([{"subgraph": share}])
