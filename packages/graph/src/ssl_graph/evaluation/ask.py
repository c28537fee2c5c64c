"""`ssl-graph evaluate RUN --more NAME`: the questions, of raw input, untrained and trained encoder.

Each is a measure of the domain (`GRAPH.measures`); `path` is other data than the run's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core.batch import Source
from ssl_core.data import decode_all
from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.evaluation.embed import Embedding, embed
from ssl_core.runs.folder import Run
from ssl_core.runs.model import Model, load_model
from ssl_core.runs.parts import build_parts, open_data
from ssl_core.runs.summary import percent
from ssl_graph.evaluation import measure
from ssl_graph.evaluation.links import Score
from ssl_graph.nodes.link_split import LinkSplit, split_links
from ssl_graph.nodes.source import NodeSource

RIVALS = ("raw", "untrained", "trained")


@dataclass(frozen=True)
class Asked:
    """A run, the data it is asked about, and its rivals' features of them."""

    run: Run
    domain: Domain
    device: torch.device
    path: str | None

    def open(self, **options: Any) -> Source:
        """The data, whole, with some of the run's `data.options` changed (None takes one out)."""
        data = self.run.recipe.data
        left = {k: v for k, v in {**data.options, **options}.items() if v is not None}
        changed: dict[str, Any] = {"limit": None, "options": left}
        if self.path is not None:
            changed |= {"path": self.path, "format": "auto"}
        return open_data(self.domain, data.model_copy(update=changed))

    @cached_property
    def model(self) -> Model:
        return load_model(self.run, self.domain, device=self.device)

    @cached_property
    def encoders(self) -> dict[str, nn.Module]:
        parts = build_parts(self.domain, self.run.recipe, self.model.reader, training=False)
        untrained = parts.method.backbone.to(self.device)
        return {"untrained": untrained, "trained": self.model.encoder}

    def features(self, source: Source) -> dict[str, Embedding]:
        """All records under every rival, unreadable ones left out."""
        found: dict[str, Embedding] = {}
        reader = self.model.reader
        for name, encoder in self.encoders.items():
            batches = decode_all(source, reader, batch_size=256, device=self.device)
            raw = reader if name == "untrained" else None
            found[name] = embed(encoder, self.model.views, batches, raw=raw)
        return {"raw": _inputs(found["untrained"]), **found}


def _inputs(found: Embedding) -> Embedding:
    """The input itself as features."""
    assert found.raw is not None
    return Embedding(found.raw, found.labels, found.keys, found.index)


def _labelled(source: Source) -> int:
    if source.classes is None:
        raise UserError("more: this question needs labels, and the data has none")
    return len(source.classes)


def _each(
    found: dict[str, Embedding], ask: Callable[[Tensor, Tensor], dict[str, Any]]
) -> dict[str, Any]:
    return {name: ask(found[name].features, found[name].labels) for name in RIVALS}


def _words(what: str, values: Sequence[float]) -> str:
    raw, untrained, trained = map(percent, values)
    return f"{what} {trained} trained, {untrained} untrained, {raw} raw"


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
    asked = Asked(run, domain, torch.device(device), path)
    source = asked.open()
    if not isinstance(source, NodeSource):
        raise UserError("more: 'nodes' asks about one big graph; for collections use 'graphs'")
    _labelled(source)
    if splits < 0 or (splits == 0 and source.public is None):
        raise UserError(f"more: nodes.splits must be positive without a public split, got {splits}")
    found = _each(
        asked.features(source),
        lambda features, labels: measure.node_scores(
            *(features, labels, source.public), seeds=range(splits), train=train, val=val
        ),
    )
    parts = []
    if source.public is not None:
        tested = [found[name]["public"]["test"] for name in RIVALS]
        parts.append(_words("public split", tested))
    if splits:
        tested = [found[name]["random"]["test"]["mean"] for name in RIVALS]
        parts.append(_words(f"{splits} random splits", tested))
    return {**found, "words": f"Node classification: {'; '.join(parts)}."}


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
    asked = Asked(run, domain, torch.device(device), path)
    source = asked.open()
    if isinstance(source, NodeSource):
        raise UserError("more: 'graphs' asks about collections; for one big graph use 'nodes'")
    _labelled(source)
    found = _each(
        asked.features(source),
        lambda features, labels: measure.graph_scores(features, labels, folds=folds, seed=seed),
    )
    parts = [
        _words(name, [found[rival][name]["mean"] for rival in RIVALS])
        for name in ("svm", "logistic")
    ]
    return {**found, "words": f"Graph classification, {folds} folds: {'; '.join(parts)}."}


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
    asked = Asked(run, domain, torch.device(device), path)
    source = asked.open()
    classes = _labelled(source)
    number = classes if count is None else count
    if seeds < 1:
        raise UserError(f"more: clusters.seeds must be at least 1, got {seeds}")
    found = _each(
        asked.features(source),
        lambda features, labels: measure.cluster_scores(
            *(features, labels, number), seeds=range(seeds)
        ),
    )
    parts = [
        _words(name, [found[rival][name]["mean"] for rival in RIVALS])
        for name in ("accuracy", "nmi", "ari")
    ]
    return {**found, "words": f"{number} clusters: {'; '.join(parts)}."}


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
    asked = Asked(run, domain, torch.device(device), path)
    hidden = run.recipe.data.options.get("hide_links") if path is None else None
    source = asked.open(hide_links=None)
    if not isinstance(source, NodeSource):
        raise UserError("more: 'links' asks about one big graph, not about a collection")
    if splits < 1:
        raise UserError(f"more: links.splits must be at least 1, got {splits}")
    if hidden:
        held = [split_links(source.table, share=hidden)]
    else:
        held = [split_links(source.table, share=share, seed=seed) for seed in range(splits)]
    embedded = [asked.features(NodeSource(split.table)) for split in held]
    found = {
        name: _ranked(held, [e[name].features for e in embedded], score, ks) for name in RIVALS
    }
    parts = [
        _words(name, [found[rival][name]["mean"] for rival in RIVALS])
        for name in ("auc", "mrr", f"hits@{ks[0]}")
    ]
    seen = "never seen in training" if hidden else "held out after training, which saw them"
    return {**found, "words": f"Links {seen}: {'; '.join(parts)}."}


def _ranked(
    splits: Sequence[LinkSplit], features: Sequence[Tensor], score: Score, ks: Sequence[int]
) -> dict[str, Any]:
    rows = iter(features)
    return measure.link_scores(lambda _: next(rows), splits, score=score, ks=ks)
