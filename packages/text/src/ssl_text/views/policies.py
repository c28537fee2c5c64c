"""View policies for text: what a method looks at in one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_text.tokens import TokenBatch
from ssl_text.views.spans import SpanCrop, TokenDeletion


class Plain:
    """One view, the document itself: masked methods hide tokens on their own."""

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        return [View(batch.data, rng.fold("view", 0))]

    def plain(self, batch: Batch) -> TokenBatch:
        """The document."""
        data: TokenBatch = batch.data
        return data


class DropoutViews(Plain):
    """SimCSE (Gao et al. 2021): the same document twice, told apart by the encoder's dropout.

    Nothing differs between the views but their keys, from which dropout draws.
    """

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        return [View(batch.data, rng.fold("view", v)) for v in range(2)]


class SpanViews(Plain):
    """Two spans of each document, thinned by deletion (after DeCLUTR, Giorgi et al. 2021).

    The lengths are uniform shares of the document rather than DeCLUTR's Beta-distributed token
    counts, so that short documents have spans too. `crop` holds the least and the largest share.
    """

    def __init__(self, crop: tuple[float, float], delete: float) -> None:
        low, high = crop
        self.crop = SpanCrop((low, high))
        self.delete = TokenDeletion(delete)

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        return [self._view(batch.data, rng.fold("view", v)) for v in range(2)]

    def _view(self, data: TokenBatch, rng: Rng) -> View:
        where = self.crop.sample(rng, data)
        span = self.crop.apply(data, where)
        kept = self.delete.sample(rng, span)
        return View(self.delete.apply(span, kept), rng, params={**where, **kept})


def none(spec: Mapping[str, Any]) -> Plain:
    """One plain view."""
    return Plain()


def dropout(spec: Mapping[str, Any]) -> DropoutViews:
    """Two views by dropout alone."""
    return DropoutViews()


def spans(
    spec: Mapping[str, Any], *, crop: tuple[float, float] = (0.3, 0.8), delete: float = 0.1
) -> SpanViews:
    """Two random spans with deleted tokens."""
    return SpanViews(crop, delete)
