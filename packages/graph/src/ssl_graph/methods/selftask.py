"""SelfTask (Jin et al. 2020): answer questions about a node's place in its network.

    L = answer(h_i) or answer(|h_i - h_j|) against the task's target
        + supervised * cross-entropy of the known labels

Tasks are of the views: degree class, depth in clusters, masked attributes, edge or not, distance
class, attribute similarity; with known labels nearness to labelled nodes and the labels around
(harmonic propagation; with prototypes for CorrectedLabel). Classes cost a cross-entropy, numbers
a squared error. The release trains both terms together on the whole graph, with masks drawn once
and fixed; here they are drawn anew each step, and partners are drawn, not listed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.objectives import masked_mean, mse
from ssl_core.objectives.precision import full_precision
from ssl_core.views import View, ViewPolicy
from ssl_graph.views.selftask import CLASSES, Questions

Reps = tuple[Tensor, Tensor, Tensor, Tensor]


class SelfTask(Method):
    """An encoder and one linear answer; the `selftask` views."""

    batch_coupled = False

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, supervised: float = 0.0) -> None:
        super().__init__(encoder, views)
        if not isinstance(views, Questions):
            raise ValueError("needs the views 'selftask', which ask the questions")
        if supervised and not views.classes:
            raise ValueError("supervised needs labels: set data.options.use_labels to true")
        width: int = encoder.embed_dim  # type: ignore[assignment]
        self.answer = nn.Linear(width, views.outputs)
        self.classify = nn.Linear(width, views.classes) if supervised else None
        self.task, self.correct, self.supervised = views.task, views.correct, supervised

    def encode(self, views: Sequence[View]) -> Reps:
        pooled = [features.pooled for features in self.features(views, joint=False)]
        about = pooled[0] if len(pooled) == 1 else (pooled[0] - pooled[1]).abs()
        label = pooled[0] if self.classify is None else self.classify(pooled[0])
        params = views[0].params
        return self.answer(about), params["target"], label, params["known"]

    def loss(self, reps: Reps) -> Loss:
        answer, target, label, known = reps
        parts = {self.task: self._error(answer, target)}
        if self.classify is not None:
            parts["supervised"] = self.supervised * known_cross_entropy(label, known)
        return Loss.of(parts)

    def _error(self, answer: Tensor, target: Tensor) -> Tensor:
        if self.task in CLASSES:
            return known_cross_entropy(answer, target)
        if self.task != "context_label":
            return mse(answer, target)
        if not self.correct:
            return mse(answer.float().softmax(1), target)
        first, second = (
            mse(a.float().softmax(1), t)
            for a, t in zip(answer.chunk(2, 1), target.chunk(2, 1), strict=True)
        )
        return first + self.correct * second


@full_precision
def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over rows whose label is not -1; uniform logits cost log C, no known label 0."""
    losses = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    return masked_mean(losses, labels >= 0)
