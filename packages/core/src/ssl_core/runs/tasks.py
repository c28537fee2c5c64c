"""What a linear head on pooled features is fine-tuned for: a class, several labels, numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Source
from ssl_core.errors import UserError
from ssl_core.evaluation.heads import (
    Head,
    average_precision,
    logistic_head,
    mean_score,
    r2,
    ridge_head,
    roc_area,
)
from ssl_core.evaluation.probe import linear_probe
from ssl_core.methods.base import Loss
from ssl_core.runs.targets import Targets, class_targets, label_targets, number_targets


class Task(ABC):
    """Targets of records, where a head starts, its loss, and how well it does.

    Fitted on the training part's targets; `names` are those of the head's outputs.
    """

    name: str
    read: Callable[[Source, Sequence[str]], Targets]
    """Targets of a source from named columns."""

    def __init__(self, targets: Targets) -> None:
        self.names = targets.names

    def goal(self, values: Tensor) -> Tensor:
        """Targets `[N, T]` as the loss takes them."""
        return values

    @abstractmethod
    def start(self, features: Tensor, values: Tensor, *, seed: int) -> Head:
        """The best head on frozen features, in the units that `loss` compares."""

    def in_units(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A head's weights whose outputs are in the units of the targets."""
        return weight, bias

    @abstractmethod
    def loss(self, outputs: Tensor, goal: Tensor) -> Loss:
        """The mean over local rows."""

    @abstractmethod
    def scores(self, outputs: Tensor, values: Tensor) -> dict[str, float]:
        """Measures of outputs (in units) against targets; the first one is the main one."""


class Classification(Task):
    """One of several classes: softmax cross-entropy; classes nobody trained on count as missed."""

    name = "classification"
    read = staticmethod(class_targets)

    def __init__(self, targets: Targets) -> None:
        self.classes = targets.values[:, 0].unique().to(torch.int64)
        self.names = tuple(targets.names[c] for c in self.classes.tolist())

    def goal(self, values: Tensor) -> Tensor:
        """Places among the trained classes."""
        return torch.searchsorted(self.classes, values[:, :1].to(torch.int64))

    def start(self, features: Tensor, values: Tensor, *, seed: int) -> Head:
        probe = linear_probe(features, values[:, 0].to(torch.int64), seed=seed)
        return Head(torch.from_numpy(probe.weight), torch.from_numpy(probe.bias), 1 / probe.c)

    def loss(self, outputs: Tensor, goal: Tensor) -> Loss:
        target = goal[:, 0].to(torch.int64)
        right = (outputs.detach().argmax(dim=1) == target).float().mean()
        return Loss.of(
            {"cross_entropy": F.cross_entropy(outputs, target)}, metrics={"accuracy": right}
        )

    def scores(self, outputs: Tensor, values: Tensor) -> dict[str, float]:
        said = self.classes[outputs.argmax(dim=1)]
        return {"accuracy": float((said == values[:, 0].to(torch.int64)).double().mean())}


class MultiLabel(Task):
    """Any of several labels: binary cross-entropy over known entries."""

    name = "multilabel"
    read = staticmethod(label_targets)

    def start(self, features: Tensor, values: Tensor, *, seed: int) -> Head:
        return logistic_head(features, values, seed=seed)

    def loss(self, outputs: Tensor, goal: Tensor) -> Loss:
        known = ~goal.isnan()
        each = F.binary_cross_entropy_with_logits(outputs, goal.nan_to_num(0.0), reduction="none")
        return Loss.of({"binary_cross_entropy": _mean_of_rows(each, known)})

    def scores(self, outputs: Tensor, values: Tensor) -> dict[str, float]:
        return {
            "mAP": mean_score(average_precision(outputs, values)),
            "AUROC": mean_score(roc_area(outputs, values)),
        }


class Regression(Task):
    """Numbers: squared error of targets standardised by the training part, over known entries."""

    name = "regression"
    read = staticmethod(number_targets)

    def __init__(self, targets: Targets) -> None:
        super().__init__(targets)
        known = [column[~column.isnan()] for column in targets.values.double().unbind(1)]
        empty = [name for name, c in zip(targets.names, known, strict=True) if len(c) == 0]
        if empty:
            raise UserError(f"target: {', '.join(empty)} has no number among the training records")
        self.mean = torch.stack([column.mean() for column in known])
        scale = torch.stack([column.std(correction=0) for column in known])
        self.scale = torch.where(scale == 0, 1.0, scale)

    def goal(self, values: Tensor) -> Tensor:
        return ((values.double() - self.mean) / self.scale).to(torch.float32)

    def start(self, features: Tensor, values: Tensor, *, seed: int) -> Head:
        return ridge_head(features, self.goal(values), seed=seed)

    def in_units(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return weight * self.scale[:, None], bias * self.scale + self.mean

    def loss(self, outputs: Tensor, goal: Tensor) -> Loss:
        known = ~goal.isnan()
        each = (outputs - torch.where(known, goal, outputs.detach())).square()
        return Loss.of({"squared_error": _mean_of_rows(each, known)})

    def scores(self, outputs: Tensor, values: Tensor) -> dict[str, float]:
        off = outputs.double() - values.double()
        return {
            "R2": mean_score(r2(outputs, values)),
            "MAE": float(off.abs().nanmean()),
            "RMSE": float(off.square().nanmean().sqrt()),
        }


def _mean_of_rows(each: Tensor, known: Tensor) -> Tensor:
    """Mean over rows of the mean over known entries, so that every record weighs the same."""
    count = known.sum(1).clamp(min=1)
    return ((each * known).sum(1) / count).mean()


TASKS: dict[str, type[Task]] = {
    task.name: task for task in (Classification, MultiLabel, Regression)
}
"""What `finetune --task` knows in every domain."""


def labelled_split(
    targets: Targets, train: np.ndarray, heldout: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a source's two sides whose targets are known."""
    known = targets.rows()
    return np.intersect1d(train, known), np.intersect1d(heldout, known)
