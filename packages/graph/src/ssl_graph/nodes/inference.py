"""Labels of all nodes from those of a few: what SelfTask's label-aware tasks start from."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_graph.nodes.network import Network


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


def iterated(network: Network, known: Tensor, *, rounds: int = 10) -> Tensor:
    """Class shares of every node by iterative classification, float32 `[N, C]`.

    A logistic regression on features names all nodes; then, `rounds` times, another one also sees
    the share of each class among a node's neighbours, as named in the round before (Neville &
    Jensen 2000). Labelled nodes stay what they are. With one known class all shares are 1.
    """
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    classes = int(known.max()) + 1
    fixed = known >= 0
    start = torch.zeros(len(known), classes, dtype=torch.float64, device=known.device)
    start[fixed, known[fixed]] = 1.0
    seen = known[fixed].unique()
    if len(seen) < 2:
        return start[fixed][:1].expand(len(known), -1).float()
    features = network.x.double()

    def named(rows: Tensor) -> Tensor:
        model = LogisticRegression(max_iter=1000)
        model.fit(rows[fixed].cpu().numpy(), known[fixed].cpu().numpy())
        found = torch.from_numpy(model.predict_proba(rows.cpu().numpy())).to(known.device)
        share = torch.zeros_like(start)
        share[:, seen] = found
        return torch.where(fixed[:, None], start, share)

    share = named(features)
    degree = network.degree.clamp(min=1)[:, None]
    for _ in range(rounds):
        votes = torch.nn.functional.one_hot(share.argmax(1), classes).double()
        total = torch.zeros_like(votes).index_add_(0, network.targets, votes[network.neighbours])
        share = named(torch.cat([features, total / degree], dim=1))
    return share.float()


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
