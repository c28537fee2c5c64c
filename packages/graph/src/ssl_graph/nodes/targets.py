"""What a node's place in its network says: the targets of SelfTask's pretext tasks.

Jin et al., "Self-supervised Learning on Graphs: Deep Insights and New Direction" (2020). All are
functions of the whole network, computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_core.errors import UserError
from ssl_graph.nodes.network import Network

DEGREE_CUTS = (2, 7)
_MOST_NODES = 50_000


def hop_distance(network: Network, sources: Tensor) -> Tensor:
    """Hops from each of S sources to every node, int64 `[S, N]`; -1 where there is no way."""
    distance = torch.full((len(sources), network.num_nodes), -1, device=sources.device)
    row = torch.arange(len(sources), device=sources.device)
    distance[row, sources] = 0
    hop, frontier = 0, distance == 0
    while frontier.any():
        hop += 1
        row, node = frontier.nonzero(as_tuple=True)
        owner, position = network.expand(node)
        # Rows list the sources of edges; a walk against the edges reaches them.
        reached = torch.zeros_like(frontier)
        reached[row[owner], network.neighbours[position]] = True
        frontier = reached & (distance < 0)
        distance[frontier] = hop
    return distance


def inverse_depth(distance: Tensor) -> Tensor:
    """1 / hops, 0 at the source itself and where there is no way; float32, any shape."""
    near = distance > 0
    return torch.where(near, 1.0 / distance.clamp(min=1), 0.0)


def distance_class(distance: Tensor) -> Tensor:
    """0, 1, 2 for 1, 2, 3 hops, 3 for four or more or no way, int64."""
    return torch.where((distance < 0) | (distance > 3), 4, distance) - 1


def degree_class(network: Network) -> Tensor:
    """0, 1, 2 for degrees up to 2, up to 7, more, int64 `[N]`."""
    low, high = DEGREE_CUTS
    return (network.degree > low).long() + (network.degree > high).long()


def part_centres(network: Network, part: Tensor) -> Tensor:
    """The node with most edges inside its part, one a part, int64 `[P]`; ties: the last node.

    The release takes that node's number inside the part for its number in the graph; this is
    what its paper says.
    """
    inside = part[network.neighbours] == part[network.targets]
    degree = torch.zeros_like(part).index_add_(0, network.targets, inside.long())
    order = degree.argsort(stable=True)
    order = order[part[order].argsort(stable=True)]
    return order[torch.bincount(part).cumsum(0) - 1]


def cluster_depth(network: Network, part: Tensor) -> Tensor:
    """1 / hops to each part's centre, float32 `[N, P]` (DistanceCluster)."""
    return inverse_depth(hop_distance(network, part_centres(network, part))).T.contiguous()


def label_nearness(network: Network, known: Tensor) -> Tensor:
    """Per class the mean of 1 / hops to its labelled nodes, float32 `[N, C]` (Distance2Labeled)."""
    classes = int(known.max()) + 1
    columns = []
    for label in range(classes):
        nodes = (known == label).nonzero()[:, 0]
        columns.append(inverse_depth(hop_distance(network, nodes)).mean(0))
    return torch.stack(columns, dim=1).nan_to_num(0.0)


def label_context(network: Network, labels: Tensor, classes: int, *, chunk: int = 4096) -> Tensor:
    """Shares of each class among a node and all within two hops, float32 `[N, C]`; rows add to 1.

    `labels` int64 `[N]` are those inferred for every node (ContextLabel).
    """
    count = network.num_nodes
    rows = []
    for nodes in torch.arange(count, device=labels.device).split(chunk):
        group = torch.arange(len(nodes), device=labels.device)
        codes, near = [group * count + nodes], nodes
        for _ in range(2):
            row, position = network.expand(near)
            group, near = group[row], network.neighbours[position]
            code = (group * count + near).unique()
            group, near = code // count, code % count
            codes.append(code)
        code = torch.cat(codes).unique()
        cell = code // count * classes + labels[code % count]
        counts = torch.bincount(cell, minlength=len(nodes) * classes).reshape(-1, classes).float()
        rows.append(counts / counts.sum(1, keepdim=True))
    return torch.cat(rows)


def pagerank(network: Network, *, damping: float = 0.85, rounds: int = 100) -> Tensor:
    """PageRank times the number of nodes, so that its mean is 1, float32 `[N]`.

    `rounds` power steps; what nodes without edges hold goes to all nodes alike.
    """
    count = network.num_nodes
    outgoing = torch.bincount(network.neighbours, minlength=count).double()
    mass = torch.ones(count, dtype=torch.float64, device=network.ptr.device)
    for _ in range(rounds):
        sent = mass / outgoing.clamp(min=1)
        received = torch.zeros_like(mass).index_add_(0, network.targets, sent[network.neighbours])
        stuck = mass[outgoing == 0].sum() / count
        mass = 1 - damping + damping * (received + stuck)
    return mass.float()


def closeness(network: Network, *, chunk: int = 256) -> Tensor:
    """How near all others are, float32 `[N]`: (n - 1)^2 / (sum of hops * (N - 1)), n reached.

    Networks of more than `_MOST_NODES` nodes raise `UserError`: every node is asked for all others.
    """
    count = network.num_nodes
    if count > _MOST_NODES:
        raise UserError(
            f"closeness: {count} nodes are more than {_MOST_NODES}; use the task 'pagerank'"
        )
    found = []
    for nodes in torch.arange(count, device=network.ptr.device).split(chunk):
        distance = hop_distance(network, nodes)
        reached = (distance > 0).sum(1)
        total = distance.clamp(min=0).sum(1)
        found.append(reached**2 / (total * (count - 1)).clamp(min=1))
    return torch.cat(found).float()


def principal(features: Tensor, width: int) -> Tensor:
    """Features `[N, F]` on their first `width` principal axes, float32 `[N, min(width, F, N)]`."""
    from sklearn.decomposition import PCA  # type: ignore[import-untyped]

    rows = features.cpu().numpy()
    made = PCA(min(width, *rows.shape), random_state=0).fit_transform(rows)
    return torch.from_numpy(made).float().to(features.device)
