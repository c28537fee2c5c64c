"""Views with questions about a node's place: SelfTask's pretext tasks (Jin et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_graph.graph import GraphBatch
from ssl_graph.nodes import targets
from ssl_graph.nodes.batch import NodeBatch, graphs_of
from ssl_graph.nodes.network import Network
from ssl_graph.nodes.partition import grow_parts

NODE_TASKS = ("degree", "cluster", "attributes", "label_distance", "context_label")
PAIR_TASKS = ("edge", "pair_distance", "attribute_similarity")
CLASSES = {"degree": 3, "edge": 2, "pair_distance": 4}
"""Answers of the tasks that name one of several; the others are numbers."""
LABELLED = ("label_distance", "context_label")


class Questions:
    """The neighbourhoods of the nodes, for pair tasks also those of a partner each.

    `params["target"]` holds the answers (int64 `[B]` classes, or float32 `[B, T]`), and where
    labels are known `params["known"]` those of the nodes (-1 unknown).
    """

    def __init__(self, spec: Mapping[str, Any], *, task: str, parts: int, correct: float) -> None:
        if task not in NODE_TASKS + PAIR_TASKS:
            raise ValueError(f"task must be one of {NODE_TASKS + PAIR_TASKS}, got {task!r}")
        if spec.get("level") != "node":
            raise ValueError("asks about nodes of one big graph, not about a collection")
        self.classes = int(spec.get("classes", 0))
        if task in LABELLED and not self.classes:
            raise ValueError(f"{task} needs labels: set data.options.use_labels to true")
        if parts < 2:
            raise ValueError(f"parts must be at least 2, got {parts}")
        self.task, self.parts, self.correct = task, parts, correct
        widths = {"cluster": parts, "attributes": spec["node_dim"], "attribute_similarity": 1}
        self.outputs: int = CLASSES.get(task) or widths.get(task, self.classes)
        if task == "context_label" and correct:
            self.outputs *= 2

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        nodes = batch.data
        if not isinstance(nodes, NodeBatch):
            raise UserError("views selftask: work on the nodes of one big graph")
        network, roots = nodes.network, nodes.roots
        known = torch.full_like(roots, -1) if network.known is None else network.known[roots]
        graphs = nodes.subgraphs(rng.fold("first"))
        if self.task in NODE_TASKS:
            target = self._about(network, roots)
            if self.task == "attributes":
                hidden = torch.zeros(graphs.num_nodes, 1, dtype=torch.bool, device=roots.device)
                hidden[graphs.roots] = True
                graphs = graphs.with_x(graphs.x.masked_fill(hidden, 0))
            return [View(graphs, rng, params={"target": target, "known": known})]
        partner, target = self._partner(network, roots, rng)
        others = replace(nodes, roots=partner).subgraphs(rng.fold("second"))
        if self.task == "edge":
            graphs, others = (_without(g, roots, partner) for g in (graphs, others))
        first = View(graphs, rng, params={"target": target, "known": known})
        return [first, View(others, rng.fold("partner"), role="partner")]

    def plain(self, batch: Batch) -> GraphBatch:
        """Fixed neighbourhoods of nodes."""
        return graphs_of(batch.data)

    def _about(self, network: Network, roots: Tensor) -> Tensor:
        """Answers about single nodes; what needs the whole network is computed once."""
        if self.task == "attributes":
            return network.x[roots]
        if self.task == "degree":
            return targets.degree_class(network)[roots]
        makers = {
            "cluster": lambda: targets.cluster_depth(network, self._even_parts(network)),
            "label_distance": lambda: targets.label_nearness(network, self._labels(network)),
            "context_label": lambda: self._context(network),
        }
        name = f"{self.task} {self.parts} {self.correct}"
        return network.cached(name, makers[self.task])[roots]

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

    def _context(self, network: Network) -> Tensor:
        """Histograms of propagated labels, with `correct` beside those of corrected ones."""
        known = self._labels(network)
        labels = targets.propagated(network, known).argmax(1)
        context = targets.label_context(network, labels, self.classes)
        if not self.correct:
            return context
        better = targets.corrected(network.x, labels)
        again = targets.label_context(network, better, self.classes)
        return torch.cat([context, again], dim=1)

    def _partner(self, network: Network, roots: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """A second node for each root, near or anywhere, and what joins the two."""
        anywhere = rng.integers("anywhere", high=network.num_nodes)
        kinds = 2 if self.task == "edge" else 4
        kind = rng.integers("kind", high=kinds)
        at, ends = roots, []
        for step in range(3):
            slot = rng.fold("walk", step).integers("to", high=network.degree[at].clamp(min=1))
            place = (network.ptr[at] + slot).clamp(max=max(network.num_edges - 1, 0))
            moved = at if network.num_edges == 0 else network.neighbours[place]
            at = torch.where(network.degree[at] > 0, moved, at)
            ends.append(at)
        walked = torch.stack(ends, dim=1).gather(1, kind.clamp(max=2)[:, None])[:, 0]
        partner = torch.where(kind == kinds - 1, anywhere, walked)
        if self.task == "attribute_similarity":
            cosine = F.cosine_similarity(network.x[roots], network.x[partner], dim=1)
            return partner, cosine[:, None]
        distance = _near_distance(network, roots, partner)
        if self.task == "edge":
            return partner, (distance == 1).long()
        # A walk may come back; a node is no pair with itself.
        return partner, torch.where(distance == 0, -1, targets.distance_class(distance))


def _near_distance(network: Network, roots: Tensor, partner: Tensor) -> Tensor:
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


def _without(graphs: GraphBatch, first: Tensor, second: Tensor) -> GraphBatch:
    """Without the edge between `first[g]` and `second[g]` (network rows) in graph g."""
    assert graphs.origin is not None
    source, target = graphs.origin[graphs.edge_index]
    a, b = first[graphs.edge_batch], second[graphs.edge_batch]
    between = ((source == a) & (target == b)) | ((source == b) & (target == a))
    return graphs.keep_edges(~between)


def selftask(
    spec: Mapping[str, Any],
    *,
    task: str = "pair_distance",
    parts: int = 10,
    correct: float = 0.0,
) -> Questions:
    """`task` is one of `NODE_TASKS` and `PAIR_TASKS`; `parts` belong to "cluster".

    `correct` > 0 adds CorrectedLabel's histogram to "context_label", weighed by it.
    """
    return Questions(spec, task=task, parts=parts, correct=correct)
