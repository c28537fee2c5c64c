"""SelfTask (Jin et al. 2020): answer questions about a node's place in its network.

    L = weight * (answer(h_i) or answer(|h_i - h_j|) against the task's target)
        + supervised * cross-entropy of the known labels

Tasks are of the views. Basic: NodeProperty (`degree`, `pagerank`, `closeness`), DistanceCluster
(`cluster`), AttributeMask (`attributes`), EdgeMask (`edge`), PairwiseDistance (`pair_distance`),
PairwiseAttrSim (`attribute_similarity`). With known labels: Distance2Labeled (`label_distance`) and
ContextLabel (`context_label`, EnsembleLabel and CorrectedLabel by its options). Classes cost a
cross-entropy, numbers a squared error; masked attributes and the tasks with labels ask about
unlabelled nodes only. The release trains both terms together on the whole graph, with masks drawn
once and fixed; here they are drawn anew each step, and partners are drawn, not listed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.objectives import masked_mean
from ssl_core.objectives.precision import full_precision
from ssl_core.views import View, ViewPolicy
from ssl_graph.views.selftask import CLASSES, Questions

Reps = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class SelfTask(Method):
    """An encoder and one linear answer; the `selftask` views."""

    batch_coupled = False

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        weight: float = 1.0,
        supervised: float = 0.0,
    ) -> None:
        super().__init__(encoder, views)
        if not isinstance(views, Questions):
            raise ValueError("needs the views 'selftask', which ask the questions")
        if weight < 0 or supervised < 0 or weight + supervised == 0:
            raise ValueError(
                f"weight and supervised must be at least 0 and not both 0, got {weight} and "
                f"{supervised}"
            )
        if supervised and not views.classes:
            raise ValueError("supervised needs labels: set data.options.use_labels to true")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.answer = nn.Linear(width, views.outputs)
        self.classify = nn.Linear(width, views.classes) if supervised else None
        self.task, self.correct = views.task, views.correct
        self.weight, self.supervised = weight, supervised

    def encode(self, views: Sequence[View]) -> Reps:
        pooled = [features.pooled for features in self.features(views, joint=False)]
        about = pooled[0] if len(pooled) == 1 else (pooled[0] - pooled[1]).abs()
        label = pooled[0] if self.classify is None else self.classify(pooled[0])
        params = views[0].params
        return self.answer(about), params["target"], params["asked"], label, params["known"]

    def loss(self, reps: Reps) -> Loss:
        answer, target, asked, label, known = reps
        parts = {self.task: self.weight * self._error(answer, target, asked)}
        if self.classify is not None:
            parts["supervised"] = self.supervised * known_cross_entropy(label, known)
        return Loss.of(parts)

    def _error(self, answer: Tensor, target: Tensor, asked: Tensor) -> Tensor:
        if self.task in CLASSES:
            return known_cross_entropy(answer, target)
        if self.task != "context_label":
            return asked_error(answer, target, asked)
        if not self.correct:
            return asked_error(answer.float().softmax(1), target, asked)
        first, second = (
            asked_error(a.float().softmax(1), t, asked)
            for a, t in zip(answer.chunk(2, 1), target.chunk(2, 1), strict=True)
        )
        return first + self.correct * second


@full_precision
def asked_error(answer: Tensor, target: Tensor, asked: Tensor) -> Tensor:
    """Mean square of `[B, T]` over rows where `asked` (`[B]`) is True; 0 where none is."""
    return masked_mean((answer - target).square().mean(1), asked)


@full_precision
def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over rows whose label is not -1; uniform logits cost log C, no known label 0."""
    losses = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    return masked_mean(losses, labels >= 0)
