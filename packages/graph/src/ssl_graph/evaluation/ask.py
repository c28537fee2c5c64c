"""`ssl-graph evaluate RUN --more NAME`: the questions, of raw input, untrained and trained encoder.

Each is a measure of the domain (`GRAPH.measures`); `path` is other data than the run's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Source
from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.evaluation.embed import Embedding
from ssl_core.runs.folder import Run
from ssl_core.runs.rivals import ORDER, Rivals, told
from ssl_graph.evaluation import measure
from ssl_graph.evaluation.links import Score
from ssl_graph.nodes.link_split import LinkSplit, split_links
from ssl_graph.nodes.source import NodeSource


def _labelled(source: Source) -> int:
    if source.classes is None:
        raise UserError("more: this question needs labels, and the data has none")
    return len(source.classes)


def _each(
    found: dict[str, Embedding], ask: Callable[[Tensor, Tensor], dict[str, Any]]
) -> dict[str, Any]:
    return {name: ask(rows.features, rows.labels) for name, rows in found.items()}


def _told(what: str, found: dict[str, Any], *path: str) -> str:
    """The number at `path` in what each rival found, in words."""
    scores = {}
    for name in ORDER:
        value = found[name]
        for key in path:
            value = value[key]
        scores[name] = value
    return f"{what} {told(scores)}"


def nodes(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    path: str | None = None,
    splits: int = 3,
    train: float = 0.1,
    val: float = 0.1,
) -> dict[str, Any]:
    """Classes of nodes: on the public split and on `splits` random ones (`node_scores`)."""
    rivals = Rivals.of(run, domain, device)
    source = rivals.open(path)
    if not isinstance(source, NodeSource):
        raise UserError("more: 'nodes' asks about one big graph; for collections use 'graphs'")
    _labelled(source)
    if splits < 0 or (splits == 0 and source.public is None):
        raise UserError(f"more: nodes.splits must be positive without a public split, got {splits}")
    found = _each(
        rivals.features(source),
        lambda features, labels: measure.node_scores(
            *(features, labels, source.public), seeds=range(splits), train=train, val=val
        ),
    )
    parts = []
    if source.public is not None:
        parts.append(_told("public split", found, "public", "test"))
    if splits:
        parts.append(_told(f"{splits} random splits", found, "random", "test", "mean"))
    return {**found, "words": f"Node classification (x 100): {'; '.join(parts)}."}


def graphs(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    path: str | None = None,
    folds: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """Classes of graphs, by an SVM and by logistic regression in `folds` folds."""
    rivals = Rivals.of(run, domain, device)
    source = rivals.open(path)
    if isinstance(source, NodeSource):
        raise UserError("more: 'graphs' asks about collections; for one big graph use 'nodes'")
    _labelled(source)
    found = _each(
        rivals.features(source),
        lambda features, labels: measure.graph_scores(features, labels, folds=folds, seed=seed),
    )
    parts = [_told(name, found, name, "mean") for name in ("svm", "logistic")]
    return {**found, "words": f"Graph classification, {folds} folds (x 100): {'; '.join(parts)}."}


def clusters(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    path: str | None = None,
    count: int | None = None,
    seeds: int = 3,
) -> dict[str, Any]:
    """`count` clusters (default: as many as classes) against the labels: accuracy, NMI, ARI."""
    rivals = Rivals.of(run, domain, device)
    source = rivals.open(path)
    classes = _labelled(source)
    number = classes if count is None else count
    if seeds < 1:
        raise UserError(f"more: clusters.seeds must be at least 1, got {seeds}")
    found = _each(
        rivals.features(source),
        lambda features, labels: measure.cluster_scores(
            *(features, labels, number), seeds=range(seeds)
        ),
    )
    parts = [_told(name, found, name, "mean") for name in ("accuracy", "nmi", "ari")]
    return {**found, "words": f"{number} clusters (x 100): {'; '.join(parts)}."}


def links(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    path: str | None = None,
    share: float = 0.1,
    splits: int = 3,
    score: Score = "cosine",
    ks: Sequence[int] = (10, 50),
) -> dict[str, Any]:
    """Held-out links against pairs without one: AUC, average precision, MRR, Hits@k.

    A run trained with `data.options.hide_links` is asked about just the links it never saw, and
    `share` and `splits` do not count; of other runs a `share` is held out, `splits` times over,
    only when features are made.
    """
    rivals = Rivals.of(run, domain, device)
    hidden = run.recipe.data.options.get("hide_links") if path is None else None
    source = rivals.open(path, hide_links=None)
    if not isinstance(source, NodeSource):
        raise UserError("more: 'links' asks about one big graph, not about a collection")
    if splits < 1:
        raise UserError(f"more: links.splits must be at least 1, got {splits}")
    if hidden:
        held = [split_links(source.table, share=hidden)]
    else:
        held = [split_links(source.table, share=share, seed=seed) for seed in range(splits)]
    embedded = [rivals.features(NodeSource(split.table)) for split in held]
    found = {name: _ranked(held, [e[name].features for e in embedded], score, ks) for name in ORDER}
    parts = [_told(name, found, name, "mean") for name in ("auc", "mrr", f"hits@{ks[0]}")]
    seen = "never seen in training" if hidden else "held out after training, which saw them"
    return {**found, "words": f"Links {seen} (x 100): {'; '.join(parts)}."}


def _ranked(
    splits: Sequence[LinkSplit], features: Sequence[Tensor], score: Score, ks: Sequence[int]
) -> dict[str, Any]:
    rows = iter(features)
    return measure.link_scores(lambda _: next(rows), splits, score=score, ks=ks)
