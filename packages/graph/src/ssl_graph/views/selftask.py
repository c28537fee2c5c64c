"""Views with questions about a node's place: SelfTask's pretext tasks (Jin et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes import inference, targets
from ssl_graph.nodes.batch import NodeBatch, graphs_of
from ssl_graph.nodes.network import Network
from ssl_graph.nodes.partition import grow_parts
from ssl_graph.views import partners
from ssl_graph.views.partners import without_edge

NODE_TASKS = (
    *("degree", "pagerank", "closeness", "cluster", "attributes"),
    *("label_distance", "context_label"),
)
PAIR_TASKS = ("edge", "pair_distance", "attribute_similarity")
CLASSES = {"degree": 3, "edge": 2, "pair_distance": 4}
"""Answers of the tasks that name one of several; the others are numbers."""
LABELLED = ("label_distance", "context_label")
INFERRED = ("propagation", "iteration", "ensemble")
"""Where the labels of `context_label` come from: see `Questions`."""


class Questions:
    """The neighbourhoods of the nodes, for pair tasks also those of a partner each.

    `params["target"]` holds the answers (int64 `[B]` classes, or float32 `[B, T]`),
    `params["known"]` the labels of the nodes (-1 unknown), and `params["asked"]` (bool `[B]`) is
    False where a question about unlabelled nodes meets a labelled one.

    `task` is one of `NODE_TASKS` and `PAIR_TASKS`. `parts` belong to "cluster"; `components` > 0
    asks for so many principal components in "attributes". "context_label" needs labels of all
    nodes, which it infers from the known ones: by harmonic propagation, by iterative
    classification, or by the mean of both (EnsembleLabel); `correct` > 0 adds CorrectedLabel's
    histogram, weighed by it.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        task: str = "pair_distance",
        parts: int = 10,
        components: int = 0,
        infer: Literal["propagation", "iteration", "ensemble"] = "propagation",
        correct: float = 0.0,
    ) -> None:
        if task not in NODE_TASKS + PAIR_TASKS:
            raise ValueError(f"task must be one of {NODE_TASKS + PAIR_TASKS}, got {task!r}")
        if spec.get("level") != "node":
            raise ValueError("asks about nodes of one big graph, not about a collection")
        self.classes = int(spec.get("classes", 0))
        if task in LABELLED and not self.classes:
            raise ValueError(f"{task} needs labels: set data.options.use_labels to true")
        if infer not in INFERRED:
            raise ValueError(f"infer must be one of {INFERRED}, got {infer!r}")
        features = min(spec["node_dim"], spec.get("nodes", spec["node_dim"]))
        if parts < 2 or not 0 <= components <= features or correct < 0:
            raise ValueError(
                f"parts must be at least 2, components lie in 0..{features} and correct be at "
                f"least 0, got {parts}, {components} and {correct}"
            )
        self.task, self.parts, self.correct = task, parts, correct
        self.components, self.infer = components, infer
        widths = {"cluster": parts, "attributes": components or spec["node_dim"]}
        widths |= dict.fromkeys(LABELLED, self.classes)
        self.outputs: int = CLASSES.get(task) or widths.get(task, 1)
        if task == "context_label" and correct:
            self.outputs *= 2

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        nodes = batch.data
        if not isinstance(nodes, NodeBatch):
            raise UserError("views selftask: work on the nodes of one big graph")
        network, roots = nodes.network, nodes.roots
        known = torch.full_like(roots, -1) if network.known is None else network.known[roots]
        graphs = nodes.subgraphs(rng.fold("first"))
        asked = known < 0 if self.task in ("attributes", *LABELLED) else known > -2
        params = {"known": known, "asked": asked}
        if self.task in NODE_TASKS:
            params["target"] = self._about(network, roots)
            if self.task == "attributes":
                hidden = torch.zeros(graphs.num_nodes, 1, dtype=torch.bool, device=roots.device)
                hidden[graphs.roots] = True
                graphs = graphs.with_x(graphs.x.masked_fill(hidden, 0))
            return [View(graphs, rng, params=params)]
        partner, params["target"] = self._partner(network, roots, rng)
        others = replace(nodes, roots=partner).subgraphs(rng.fold("second"))
        if self.task == "edge":
            graphs, others = (without_edge(g, roots, partner) for g in (graphs, others))
        first = View(graphs, rng, params=params)
        return [first, View(others, rng.fold("partner"), role="partner")]

    def plain(self, batch: Batch) -> GraphBatch:
        """Fixed neighbourhoods of nodes."""
        return graphs_of(batch.data)

    def _about(self, network: Network, roots: Tensor) -> Tensor:
        """Answers about single nodes; what needs the whole network is computed once."""
        if self.task == "degree":
            return targets.degree_class(network)[roots]
        if self.task == "attributes" and not self.components:
            return network.x[roots]
        makers: dict[str, Callable[[], Tensor]] = {
            "pagerank": lambda: targets.pagerank(network)[:, None],
            "closeness": lambda: targets.closeness(network)[:, None],
            "attributes": lambda: targets.principal(network.x, self.components),
            "cluster": lambda: targets.cluster_depth(network, self._even_parts(network)),
            "label_distance": lambda: targets.label_nearness(network, self._labels(network)),
            "context_label": lambda: self._context(network),
        }
        name = f"{self.task} {self.parts} {self.components} {self.infer} {bool(self.correct)}"
        return network.cached(name, makers[self.task])[roots]

    def _partner(self, network: Network, roots: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """A second node for each root, and what joins the two."""
        if self.task == "attribute_similarity":
            return partners.by_features(network, roots, rng)
        partner = partners.by_walks(network, roots, rng, steps=1 if self.task == "edge" else 3)
        distance = partners.near_distance(network, roots, partner)
        if self.task == "edge":
            return partner, (distance == 1).long()
        # A walk may come back; a node is no pair with itself.
        return partner, torch.where(distance == 0, -1, targets.distance_class(distance))

    def _even_parts(self, network: Network) -> Tensor:
        """Exactly `parts` parts: the growth may leave more, the smallest join the last."""
        part = grow_parts(network.ptr, network.neighbours, parts=self.parts)
        order = torch.bincount(part).argsort(descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device)
        merged = rank[part].clamp(max=self.parts - 1)
        if int(merged.max()) + 1 < self.parts:
            raise UserError(f"views selftask: {self.parts} parts of {network.num_nodes} nodes")
        return merged

    def _labels(self, network: Network) -> Tensor:
        if network.known is None:
            raise UserError(f"views selftask: {self.task} needs data.options.use_labels")
        return network.known

    def _inferred(self, network: Network, known: Tensor) -> Tensor:
        """Class shares of every node."""
        shares = []
        if self.infer != "iteration":
            shares.append(inference.propagated(network, known))
        if self.infer != "propagation":
            shares.append(inference.iterated(network, known))
        return torch.stack(shares).mean(0)

    def _context(self, network: Network) -> Tensor:
        """Histograms of propagated labels, with `correct` beside those of corrected ones."""
        known = self._labels(network)
        labels = self._inferred(network, known).argmax(1)
        context = targets.label_context(network, labels, self.classes)
        if not self.correct:
            return context
        better = inference.corrected(network.x, labels)
        again = targets.label_context(network, better, self.classes)
        return torch.cat([context, again], dim=1)
