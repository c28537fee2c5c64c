"""Views for methods that tell true nodes from corrupted ones: DGI and MVGRL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.batch import graphs_of
from ssl_graph.views.diffusion import Diffusion, diffused
from ssl_graph.views.ops import OPS


class Corrupted:
    """The graph as it is ("global"), and with other nodes' features on its edges ("corrupted").

    With a `diffusion` both also come with diffused edges, after the two: "diffused" and
    "diffused corrupted". All views show the same neighbourhood, or of each graph the same
    connected part without the share `subgraph` of its nodes.
    """

    def __init__(
        self, diffusion: Mapping[str, Any] | None = None, *, subgraph: float = 0.0
    ) -> None:
        if not 0 <= subgraph < 1:
            raise ValueError(f"subgraph must lie in [0, 1), got {subgraph}")
        self.subgraph = subgraph
        self.diffusion = None if diffusion is None else dict(diffusion)

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        graphs = graphs_of(batch.data, rng)
        if self.subgraph:
            part = OPS["subgraph"]
            graphs = part.apply(graphs, part.sample(rng, graphs, self.subgraph))
        shuffle = OPS["feature_shuffle"]
        other = shuffle.apply(graphs, shuffle.sample(rng, graphs, 1.0))
        views = [View(graphs, rng), View(other, rng.fold("corrupted"), role="corrupted")]
        if self.diffusion is None:
            return views
        spread = diffused(graphs, **self.diffusion)
        views.append(View(spread, rng.fold("diffused"), role="diffused"))
        changed = spread.with_x(other.x)
        views.append(View(changed, rng.fold("diffused", "corrupted"), role="diffused corrupted"))
        return views

    def plain(self, batch: Batch) -> GraphBatch:
        """The graphs as they are, or fixed neighbourhoods of nodes."""
        return graphs_of(batch.data)


def dgi(spec: Mapping[str, Any], *, subgraph: float = 0.0) -> Corrupted:
    """DGI (Velickovic et al., ICLR 2019): the graph and its feature-shuffled corruption."""
    return Corrupted(subgraph=subgraph)


def mvgrl(
    spec: Mapping[str, Any],
    *,
    kind: Diffusion = "ppr",
    alpha: float = 0.2,
    time: float = 5.0,
    eps: float = 1e-4,
    subgraph: float = 0.0,
) -> Corrupted:
    """MVGRL (Hassani & Khasahmadi, ICML 2020): edges and their diffusion, each also corrupted."""
    if kind not in ("ppr", "heat"):
        raise ValueError(f"kind must be 'ppr' or 'heat', got {kind!r}")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must lie in (0, 1], got {alpha}")
    return Corrupted({"kind": kind, "alpha": alpha, "time": time, "eps": eps}, subgraph=subgraph)
