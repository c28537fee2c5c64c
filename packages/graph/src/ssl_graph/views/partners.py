"""Second nodes for questions about pairs (SelfTask), drawn for a whole batch of first ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.rng import Rng
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes.network import Network


def by_walks(network: Network, roots: Tensor, rng: Rng, *, steps: int) -> Tensor:
    """Where a walk of 1 .. `steps` steps ends, or any node of the network, each as likely."""
    anywhere = rng.integers("anywhere", high=network.num_nodes)
    kind = rng.integers("kind", high=steps + 1)
    at, ends = roots, []
    for step in range(steps):
        at = network.step(at, rng.fold("walk", step))
        ends.append(at)
    walked = torch.stack(ends, dim=1).gather(1, kind.clamp(max=steps - 1)[:, None])[:, 0]
    return torch.where(kind == steps, anywhere, walked)


def by_features(
    network: Network, roots: Tensor, rng: Rng, *, count: int = 3, chunk: int = 128
) -> tuple[Tensor, Tensor]:
    """One of the `count` most alike, of the `count` least alike, or any node: a third each.

    Returns the nodes and their cosine with the root, float32 `[B, 1]`. A root is not its own
    partner unless drawn as any node. `chunk` roots are compared with all nodes at a time.
    """
    unit = network.cached("unit features", lambda: F.normalize(network.x, dim=1))
    wanted = min(count, max(1, network.num_nodes - 1))
    nearest, farthest = [], []
    for nodes in roots.split(chunk):
        alike = unit[nodes] @ unit.T  # [chunk, N]
        itself = torch.arange(len(nodes), device=nodes.device), nodes
        farthest.append(
            alike.index_put(itself, alike.new_tensor(torch.inf)).topk(wanted, largest=False)[1]
        )
        nearest.append(alike.index_put(itself, alike.new_tensor(-torch.inf)).topk(wanted)[1])
    near, far = torch.cat(nearest), torch.cat(farthest)
    slot = rng.integers("slot", high=wanted)[:, None]
    choices = torch.stack(
        [
            near.gather(1, slot)[:, 0],
            far.gather(1, slot)[:, 0],
            rng.integers("anywhere", high=network.num_nodes),
        ],
        dim=1,
    )
    partner = choices.gather(1, rng.integers("kind", high=3)[:, None])[:, 0]
    return partner, (unit[roots] * unit[partner]).sum(1, keepdim=True)


def near_distance(network: Network, roots: Tensor, partner: Tensor) -> Tensor:
    """Hops from root to partner up to 3, -1 beyond, int64 `[B]`."""
    count = network.num_nodes
    group, near = torch.arange(len(roots), device=roots.device), roots
    wanted = group * count + partner
    distance = torch.where(partner == roots, 0, -1)
    for hop in (1, 2, 3):
        row, position = network.expand(near)
        code = (group[row] * count + network.neighbours[position]).unique()
        group, near = code // count, code % count
        distance = torch.where((distance < 0) & torch.isin(wanted, code), hop, distance)
    return distance


def without_edge(graphs: GraphBatch, first: Tensor, second: Tensor) -> GraphBatch:
    """Without the edge between `first[g]` and `second[g]` (network rows) in graph g."""
    assert graphs.origin is not None
    source, target = graphs.origin[graphs.edge_index]
    a, b = first[graphs.edge_batch], second[graphs.edge_batch]
    between = ((source == a) & (target == b)) | ((source == b) & (target == a))
    return graphs.keep_edges(~between)
