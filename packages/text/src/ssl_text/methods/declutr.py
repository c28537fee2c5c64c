"""DeCLUTR (Giorgi et al., ACL 2021): near spans of one document attract, and words are predicted.

    L = NT-Xent(anchor, mean of its positives) + mlm * masked language modelling of the anchors

All anchors of a batch count in one NT-Xent, those of the same document as each other's
negatives. Vectors are the encoder's own, without a projector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_core.methods.base import Loss, Method
from ssl_core.methods.masked import Prediction
from ssl_core.objectives import nt_xent
from ssl_core.views import View, ViewPolicy
from ssl_text.methods.mlm import MLM

Reps = tuple[list[Tensor], list[Tensor], list[Prediction]]


class DeCLUTR(Method):
    """The `declutr` views, an encoder, and BERT's head where `mlm` > 0."""

    def __init__(
        self,
        encoder: nn.Module,
        views: ViewPolicy,
        *,
        temperature: float = 0.05,
        mlm: float = 1.0,
        mask_ratio: float = 0.15,
    ) -> None:
        super().__init__(encoder, views)
        self.language = MLM(encoder, views, mask_ratio=mask_ratio) if mlm else None
        self.temperature, self.weight = temperature, mlm

    def encode(self, views: Sequence[View]) -> Reps:
        pooled = [features.pooled for features in self.features(views, joint=False)]
        anchors: list[Tensor] = []
        positives: list[list[Tensor]] = []
        for view, vector in zip(views, pooled, strict=True):
            if view.role == "anchor":
                anchors.append(vector)
                positives.append([])
            else:
                positives[-1].append(vector)
        near = [torch.stack(vectors).mean(0) for vectors in positives]
        if self.language is None:
            return anchors, near, []
        shown = [view for view in views if view.role == "anchor"]
        return anchors, near, self.language.encode(shown)

    def loss(self, reps: Reps) -> Loss:
        anchors, near, predictions = reps
        contrast = nt_xent(torch.cat(anchors), torch.cat(near), temperature=self.temperature)
        parts = {"nt_xent": contrast}
        if self.language is not None:
            parts["mlm"] = self.weight * self.language.loss(predictions).total
        return Loss.of(parts)
