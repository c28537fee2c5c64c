"""View operations on a batch of graphs: drop, add, grow a subgraph, mask or shuffle features.

Each operation is a `sample` (what to keep or mask, a pure function of each graph's key and the
node numbers within the graph, so the same in any batch) and an `apply`. `share` is the share to
drop or mask, one number or one per graph (`[G]`); 0 is the identity.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ssl_core.rng import Rng
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.grown import ranks

Share = float | Tensor


class GraphOp(Protocol):
    """A random operation on graphs."""

    def sample(self, rng: Rng, graphs: GraphBatch, share: Share) -> Tensor:
        """What to do, from one key a graph."""

    def apply(self, graphs: GraphBatch, params: Tensor) -> GraphBatch:
        """Does it."""


def node_keys(rng: Rng, graphs: GraphBatch) -> Rng:
    """One key per node, `[N]`: the graph's key and the node's number in the graph."""
    return rng[graphs.batch].fold(graphs.local)


def edge_keys(rng: Rng, graphs: GraphBatch) -> Rng:
    """One key per edge, `[E]`; the two directions of an undirected edge share theirs."""
    ends = graphs.local[graphs.edge_index]
    first, second = (ends[0], ends[1]) if graphs.directed else (ends.amin(0), ends.amax(0))
    return rng[graphs.edge_batch].fold(first, second)


def _per(share: Share, graph_of: Tensor) -> Share:
    """A share per graph as one per node or edge."""
    return share[graph_of] if isinstance(share, Tensor) else share


def kept_count(graphs: GraphBatch, share: Share) -> Tensor:
    """Nodes that stay when int(share * n) go, at least one, int64 `[G]`."""
    # The small addend: 0.29 * 100 must count as 29.
    dropped = (graphs.sizes.to(torch.float64) * share + 1e-6).floor().to(torch.int64)
    return (graphs.sizes - dropped).clamp(min=1)


def _smallest(graphs: GraphBatch, score: Tensor, count: Tensor) -> Tensor:
    """True at the `count[g]` nodes of smallest `score` (`[N]`) in each graph, bool `[N]`.

    The root of a rooted graph is always among them.
    """
    if graphs.rooted:
        score = score.index_fill(0, graphs.roots, -torch.inf)
    return lowest(graphs.batch, score, count)


def lowest(group: Tensor, score: Tensor, count: Tensor) -> Tensor:
    """True at the `count[g]` items of smallest `score` in each group; `group`, `score` are `[M]`.

    Ties go to the earlier item.
    """
    return ranks(group, score, len(count)) < count[group]


class EdgeDrop:
    """Every edge goes with probability `share` (GRACE; Zhu et al. 2020)."""

    def sample(self, rng: Rng, graphs: GraphBatch, share: Share) -> Tensor:
        drawn = edge_keys(rng, graphs).uniform("edge drop")
        return drawn >= _per(share, graphs.edge_batch)

    def apply(self, graphs: GraphBatch, params: Tensor) -> GraphBatch:
        return graphs.keep_edges(params)


class NodeDrop:
    """int(share * n) nodes of each graph go, never all, with their edges (GraphCL, 2020)."""

    def sample(self, rng: Rng, graphs: GraphBatch, share: Share) -> Tensor:
        drawn = node_keys(rng, graphs).uniform("node drop")
        return _smallest(graphs, drawn, kept_count(graphs, share))

    def apply(self, graphs: GraphBatch, params: Tensor) -> GraphBatch:
        return graphs.keep_nodes(params)


class Subgraph:
    """A connected part with n - int(share * n) nodes, grown from a random node (GraphCL).

    GraphCL adds a uniformly drawn neighbour of the part, one at a time. Here all graphs grow at
    once: every node gets an exponential waiting time that starts when the part first touches it,
    which, exponentials having no memory, joins nodes in the same random order. Arrival times are
    shortest paths, and the earliest nodes stay. A component that is too small stays whole.
    """

    def sample(self, rng: Rng, graphs: GraphBatch, share: Share) -> Tensor:
        start = graphs.roots
        if not graphs.rooted:
            start = start + rng.integers("subgraph start", high=graphs.sizes)
        drawn = node_keys(rng, graphs).uniform("subgraph wait", dtype=torch.float64)
        arrival = arrival_times(graphs, start, -torch.log1p(-drawn))
        grown = _smallest(graphs, arrival, kept_count(graphs, share)) & arrival.isfinite()
        if isinstance(share, Tensor):  # share 0 keeps unreached components too
            grown |= share[graphs.batch] == 0
        elif share == 0:
            grown = torch.ones_like(grown)
        return grown

    def apply(self, graphs: GraphBatch, params: Tensor) -> GraphBatch:
        return graphs.keep_nodes(params)


def hops_from_centre(graphs: GraphBatch, rng: Rng) -> tuple[Tensor, Tensor]:
    """A centre of each graph, int64 `[G]`, and every node's hops from it, float64 `[N]`.

    The centre is the root of a neighbourhood, of other graphs a random node.
    """
    centre = graphs.roots
    if not graphs.rooted:
        centre = centre + rng.integers("centre", high=graphs.sizes)
    steps = torch.ones(graphs.num_nodes, dtype=torch.float64, device=graphs.x.device)
    return centre, arrival_times(graphs, centre, steps)


def arrival_times(graphs: GraphBatch, start: Tensor, wait: Tensor) -> Tensor:
    """When growth from the nodes `start` reaches each node (inf: never), float64 `[N]`."""
    source, target = graphs.edge_index
    if graphs.directed:  # connected means connected when directions are ignored
        source, target = torch.cat([source, target]), torch.cat([target, source])
    arrival = torch.full_like(wait, torch.inf)
    arrival[start] = 0
    while True:
        through = arrival[source] + wait[target]
        nearer = arrival.scatter_reduce(0, target, through, "amin")
        if torch.equal(nearer, arrival):
            return arrival
        arrival = nearer


class FeatureMask:
    """Every feature column of a graph is zero with probability `share` (GRACE)."""

    def sample(self, rng: Rng, graphs: GraphBatch, share: Share) -> Tensor:
        p = share[:, None] if isinstance(share, Tensor) else share
        return rng.uniform("feature mask", graphs.x.shape[1]) < p

    def apply(self, graphs: GraphBatch, params: Tensor) -> GraphBatch:
        return graphs.with_x(graphs.x.masked_fill(params[graphs.batch], 0))


class NodeMask:
    """The features of int(share * n) nodes are zero (GraphCL's attribute masking).

    The released GraphCL writes noise around 0.5 instead; zero is the mean of standardised
    attributes and "none" for one-hot labels.
    """

    def sample(self, rng: Rng, graphs: GraphBatch, share: Share) -> Tensor:
        drawn = node_keys(rng, graphs).uniform("node mask")
        kept = _smallest(replace(graphs, rooted=False), drawn, kept_count(graphs, share))
        return ~kept

    def apply(self, graphs: GraphBatch, params: Tensor) -> GraphBatch:
        return graphs.with_x(graphs.x.masked_fill(params[:, None], 0))


class EdgeAdd:
    """For every `1 / share` edges a random pair of nodes of the graph is joined (GraphCL's paper).

    A pair that is one node or already joined adds nothing, so small dense graphs get fewer. New
    edges have zero edge features. The released GraphCL for TU data only drops.
    """

    def sample(self, rng: Rng, graphs: GraphBatch, share: Share) -> Tensor:
        drawn = edge_keys(rng, graphs)
        ends = drawn.integers("edge add", 2, high=graphs.sizes[graphs.edge_batch][:, None])
        first = graphs.local[graphs.edge_index]
        listed_once = torch.full_like(first[0], graphs.directed, dtype=torch.bool) | (
            first[0] < first[1]
        )
        chosen = (drawn.uniform("edge add?") < _per(share, graphs.edge_batch)) & listed_once
        return (ends + graphs.ptr[graphs.edge_batch][:, None])[chosen].T

    def apply(self, graphs: GraphBatch, params: Tensor) -> GraphBatch:
        added = params if graphs.directed else torch.cat([params, params.flip(0)], dim=1)
        added = added[:, added[0] != added[1]]
        code = (added[0] * graphs.num_nodes + added[1]).unique()
        have = graphs.edge_index[0] * graphs.num_nodes + graphs.edge_index[1]
        code = code[~torch.isin(code, have)]
        edges = torch.stack([code // graphs.num_nodes, code % graphs.num_nodes])
        attr, weight = graphs.edge_attr, graphs.edge_weight
        if attr is not None:
            attr = torch.cat([attr, attr.new_zeros(len(code), attr.shape[1])])
        if weight is not None:
            weight = torch.cat([weight, weight.new_ones(len(code))])
        joined = torch.cat([graphs.edge_index, edges], dim=1)
        return replace(graphs, edge_index=joined, edge_attr=attr, edge_weight=weight)


class FeatureShuffle:
    """Nodes get the features of other nodes, the edges stay: DGI's corruption.

    With probability `share` a graph's rows are permuted. In neighbourhoods every node gets the
    features of a node drawn from the whole network (with replacement, where DGI permutes all rows
    at once).
    """

    def sample(self, rng: Rng, graphs: GraphBatch, share: Share) -> Tensor:
        p = share if isinstance(share, Tensor) else float(share)
        taken = rng.bernoulli("shuffle?", p=p)[graphs.batch]
        if graphs.pool is not None:
            source = node_keys(rng, graphs).integers("shuffle", high=graphs.pool.shape[0])
            return torch.where(taken, source, -1)
        drawn = node_keys(rng, graphs).uniform("shuffle", dtype=torch.float64)
        by_score = drawn.argsort(stable=True)
        order = by_score[graphs.batch[by_score].argsort(stable=True)]
        return torch.where(taken, order, -1)

    def apply(self, graphs: GraphBatch, params: Tensor) -> GraphBatch:
        pool = graphs.x if graphs.pool is None else graphs.pool
        other = pool[params.clamp(min=0)]
        return graphs.with_x(torch.where((params >= 0)[:, None], other, graphs.x))


OPS: dict[str, GraphOp] = {
    "edge_drop": EdgeDrop(),
    "edge_add": EdgeAdd(),
    "node_drop": NodeDrop(),
    "subgraph": Subgraph(),
    "feature_mask": FeatureMask(),
    "node_mask": NodeMask(),
    "feature_shuffle": FeatureShuffle(),
}
