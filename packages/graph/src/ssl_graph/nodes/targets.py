"""What a node's place in its network says: the targets of SelfTask's pretext tasks.

Jin et al., "Self-supervised Learning on Graphs: Deep Insights and New Direction" (2020). All are
functions of the whole network, computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_graph.nodes.network import Network

DEGREE_CUTS = (2, 7)


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


def propagated(network: Network, known: Tensor, *, rounds: int = 50) -> Tensor:
    """Class shares of every node by harmonic label propagation, float32 `[N, C]`.

    Unlabelled nodes take the mean of their neighbours (Zhu et al. 2003), `rounds` times; labelled
    ones stay. What nothing reaches is uniform.
    """
    classes = int(known.max()) + 1
    fixed = known >= 0
    start = torch.zeros(len(known), classes, device=known.device)
    start[fixed, known[fixed]] = 1.0
    share = start.clone()
    for _ in range(rounds):
        total = torch.zeros_like(share).index_add_(0, network.targets, share[network.neighbours])
        share = torch.where(fixed[:, None], start, total / network.degree.clamp(min=1)[:, None])
    total = share.sum(1, keepdim=True)
    return torch.where(total > 0, share / total.clamp(min=1e-12), 1.0 / classes)


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


def corrected(
    features: Tensor,
    labels: Tensor,
    *,
    sample: int = 320,
    prototypes: int = 8,
    quantile: float = 0.4,
    alike: float = 0.95,
) -> Tensor:
    """Labels int64 `[N]` by prototypes: CorrectedLabel, after Han et al. (ICCV 2019).

    Of each class up to `sample` nodes (the first) are compared by cosine; a node's density counts
    those more similar than the `quantile` of all similarities, less those that are not. Nodes too
    like a denser one (`alike`) are passed over, the densest others are the class's prototypes. A
    node's label is the class whose prototypes it is most like on average.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    scores = []
    for label in range(int(labels.max()) + 1):
        own = unit[(labels == label).nonzero()[:sample, 0]]
        if len(own) == 0:
            scores.append(unit.new_full((len(unit),), -torch.inf))
            continue
        similar = own @ own.T
        density = (similar - similar.quantile(quantile)).sign().sum(1)
        denser = density[None] > density[:, None]
        likeness = torch.where(denser, similar, -torch.inf).amax(1)
        likeness = torch.where(denser.any(1), likeness, similar.amin(1))
        usable = torch.where(likeness < alike, density, -torch.inf)
        if usable.isinf().all():
            usable = density
        chosen = usable.argsort(descending=True, stable=True)[:prototypes]
        chosen = chosen[~usable[chosen].isinf()]
        scores.append((unit @ own[chosen].T).mean(1))
    return torch.stack(scores, dim=1).argmax(1)
