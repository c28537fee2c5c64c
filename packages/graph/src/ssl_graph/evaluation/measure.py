"""Every question at once, of one encoder: `ssl_graph.measure(run, data)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ssl_core.batch import Source
from ssl_core.errors import UserError
from ssl_core.evaluation.clusters import agreement, cluster
from ssl_core.evaluation.folds import cross_validate
from ssl_core.runs.model import Model
from ssl_graph.evaluation.links import link_prediction, split_links
from ssl_graph.evaluation.nodes import node_classification, random_split
from ssl_graph.nodes.source import NodeSource


def measure(
    model: Model,
    source: Source,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    links: bool = True,
    folds: int = 10,
) -> dict[str, Any]:
    """What the features of `model` (of `ssl_graph.load`) know about a labelled source.

    Nodes of one graph: accuracy on the public split where there is one and on random 10/10/80
    splits, clustering with as many clusters as classes, and links held out before embedding (the
    encoder was trained on them all the same, unless it was trained on `split_links(...).table`;
    the score says how well features of the remaining graph tell them). Collections of graphs:
    SVM and logistic regression in `folds` folds, and clustering. Nothing is chosen on test parts.
    """
    embedding = model.embed_source(source)
    features, labels = embedding.features, embedding.labels
    if source.classes is None:
        raise UserError("data: measuring needs labels")
    clusters = [agreement(cluster(features, len(source.classes), seed=s), labels) for s in seeds]
    found: dict[str, Any] = {"clusters": _mean([asdict(c) for c in clusters])}
    if not isinstance(source, NodeSource):
        for classifier in ("svm", "logistic"):
            scored = cross_validate(features, labels, classifier=classifier, folds=folds)  # type: ignore[arg-type]
            found[classifier] = {"mean": scored.mean, "std": scored.std}
        return found
    if source.table.split is not None:
        found["public"] = asdict(node_classification(features, labels, source.split()))
    splits = [random_split(labels, seed=seed) for seed in seeds]
    found["random"] = _mean([asdict(node_classification(features, labels, s)) for s in splits])
    if links:
        rows = []
        for seed in seeds:
            split = split_links(source.table, seed=seed)
            left = model.embed_source(NodeSource(split.table)).features
            scored = asdict(link_prediction(left, split))
            hits = scored.pop("hits")
            rows.append({**scored, **{f"hits@{k}": v for k, v in hits.items()}})
        found["links"] = _mean(rows)
    return found


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation of each number."""
    table = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: {"mean": float(np.mean(v)), "std": float(np.std(v, ddof=1)) if len(v) > 1 else 0.0}
        for name, v in table.items()
    }
