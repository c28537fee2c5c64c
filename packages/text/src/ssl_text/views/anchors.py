"""Anchors and positives: spans of one document that lie near each other (DeCLUTR)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_text.tokens import TokenBatch
from ssl_text.views.policies import Plain
from ssl_text.views.spans import SpanCrop


def beta(rng: Rng, stream: str, a: int, b: int) -> Tensor:
    """Beta(a, b) with whole parameters, `[B]`: the a-th smallest of a + b - 1 uniform numbers."""
    return rng.uniform(stream, a + b - 1, dtype=torch.float64).sort(dim=1).values[:, a - 1]


class AnchorViews(Plain):
    """`anchors` spans of each document and `positives` near each (Giorgi et al., ACL 2021).

    Anchors are long (Beta(4, 2)), positives short (Beta(2, 4)), between `least` and `most` tokens
    (and the document's length). A positive overlaps its anchor, touches it or lies inside it.
    Views come anchor by anchor: role "anchor", then its "positive"s.
    """

    def __init__(self, *, anchors: int, positives: int, least: int, most: int) -> None:
        if anchors < 1 or positives < 1 or not 1 <= least <= most:
            raise ValueError(
                "need anchors >= 1, positives >= 1 and 1 <= least <= most, got "
                f"{anchors}, {positives}, {least}, {most}"
            )
        self.anchors, self.positives = anchors, positives
        self.least, self.most = least, most

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        views = []
        for number in range(self.anchors):
            own = rng.fold("anchor", number)
            start, length = self._anchor(batch.data, own)
            views.append(_view(batch.data, own, start, length, "anchor"))
            for other in range(self.positives):
                near = own.fold("positive", other)
                views.append(self._positive(batch.data, near, start, length))
        return views

    def _length(self, data: TokenBatch, share: Tensor) -> Tensor:
        inner = data.lengths - 2
        low = inner.clamp(max=self.least)
        high = inner.clamp(max=self.most)
        return (low + share * (high - low)).round().to(torch.int64)

    def _anchor(self, data: TokenBatch, rng: Rng) -> tuple[Tensor, Tensor]:
        length = self._length(data, beta(rng, "length", 4, 2))
        return rng.integers("start", high=data.lengths - 2 - length + 1), length

    def _positive(self, data: TokenBatch, rng: Rng, start: Tensor, length: Tensor) -> View:
        own = self._length(data, beta(rng, "length", 2, 4))
        first = (start - own).clamp(min=0)
        last = torch.minimum(start + length, data.lengths - 2 - own)
        place = rng.integers("start", low=first, high=last + 1)
        return _view(data, rng, place, own, "positive")


def _view(data: TokenBatch, rng: Rng, start: Tensor, length: Tensor, role: str) -> View:
    where = {"crop_start": start, "crop_length": length}
    span = SpanCrop((1.0, 1.0)).apply(data, where)
    widest = int(span.lengths.max())
    span = TokenBatch(span.ids[:, :widest], span.valid[:, :widest], span.pad_id)
    return View(span, rng, role=role, params=where)


def declutr(
    spec: Mapping[str, Any],
    *,
    anchors: int = 1,
    positives: int = 2,
    least: int = 8,
    most: int = 512,
) -> AnchorViews:
    """The paper has 2 anchors, 2 positives, 32 to 512 tokens, in documents of 2048 and more."""
    return AnchorViews(anchors=anchors, positives=positives, least=least, most=most)
