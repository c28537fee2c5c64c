"""What features know, one question a function; every one at once with `ssl_graph.measure`.

Nothing is chosen on test parts, and labels of test records are looked at once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from ssl_core.batch import Source
from ssl_core.errors import UserError
from ssl_core.evaluation.clusters import agreement, cluster
from ssl_core.evaluation.folds import cross_validate
from ssl_core.runs.model import Model
from ssl_graph.evaluation.links import Score, link_prediction
from ssl_graph.evaluation.nodes import node_classification, random_split
from ssl_graph.nodes.link_split import LinkSplit, split_links
from ssl_graph.nodes.source import NodeSource

Found = dict[str, Any]


def node_scores(
    features: Tensor,
    labels: Tensor,
    public: Mapping[str, np.ndarray] | None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    train: float = 0.1,
    val: float = 0.1,
) -> Found:
    """Accuracy of a linear model on the `public` split, where there is one, and on random splits.

    `features` `[N, D]`, `labels` int64 `[N]`; the random splits, one a seed, take shares `train`
    and `val` of every class.
    """
    found: Found = {}
    if public is not None:
        found["public"] = asdict(node_classification(features, labels, public))
    splits = [random_split(labels, train=train, val=val, seed=seed) for seed in seeds]
    if splits:
        found["random"] = mean(asdict(node_classification(features, labels, s)) for s in splits)
    return found


def graph_scores(
    features: Tensor, labels: Tensor, *, folds: int = 10, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Accuracy of an SVM and of logistic regression over stratified folds, each with its spread."""
    found = {}
    for classifier in ("svm", "logistic"):
        scored = cross_validate(features, labels, classifier=classifier, folds=folds, seed=seed)  # type: ignore[arg-type]
        found[classifier] = {"mean": scored.mean, "std": scored.std}
    return found


def cluster_scores(
    features: Tensor, labels: Tensor, count: int, *, seeds: Sequence[int] = (0, 1, 2)
) -> Found:
    """How well `count` clusters by k-means agree with the labels: accuracy, NMI, ARI, F1."""
    found = [agreement(cluster(features, count, seed=seed), labels) for seed in seeds]
    return mean(asdict(one) for one in found)


def link_scores(
    embedded: Callable[[NodeSource], Tensor],
    splits: Sequence[LinkSplit],
    *,
    score: Score = "cosine",
    ks: Sequence[int] = (10, 50),
) -> Found:
    """AUC, average precision, MRR and Hits of held-out links, over splits.

    `embedded` gives the features `[N, D]` of all nodes of a source, here of the network without
    the held-out links.
    """
    rows = []
    for split in splits:
        left = embedded(NodeSource(split.table))
        scored = asdict(link_prediction(left, split, score=score, ks=tuple(ks)))
        hits = scored.pop("hits")
        rows.append({**scored, **{f"hits@{k}": value for k, value in hits.items()}})
    return mean(rows)


def measure(
    model: Model,
    source: Source,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    links: bool = True,
    folds: int = 10,
) -> Found:
    """What the features of `model` (of `ssl_graph.load`) know about a labelled source.

    Nodes of one graph: `node_scores`, clusters, and links held out before embedding (the encoder
    was trained on them all the same, unless it was trained on `split_links(...).table`; the score
    says how well features of the remaining graph tell them). Collections: `graph_scores` and
    clusters.
    """
    embedding = model.embed_source(source)
    features, labels = embedding.features, embedding.labels
    if source.classes is None:
        raise UserError("data: measuring needs labels")
    found: Found = {"clusters": cluster_scores(features, labels, len(source.classes), seeds=seeds)}
    if not isinstance(source, NodeSource):
        return {**found, **graph_scores(features, labels, folds=folds)}
    found |= node_scores(features, labels, source.public, seeds=seeds)
    if links:
        splits = [split_links(source.table, seed=seed) for seed in seeds]
        found["links"] = link_scores(lambda s: model.embed_source(s).features, splits)
    return found


def mean(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation of each number over mappings of numbers."""
    listed = list(rows)
    table = {name: [row[name] for row in listed] for name in listed[0]}
    return {
        name: {"mean": float(np.mean(v)), "std": float(np.std(v, ddof=1)) if len(v) > 1 else 0.0}
        for name, v in table.items()
    }
