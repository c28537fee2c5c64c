"""A document with words deleted, and the document: what TSDAE rebuilds from what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_text.views.policies import Plain
from ssl_text.views.spans import TokenDeletion


class DeletedViews(Plain):
    """First the document without the share `delete` of its tokens, then ("original") itself."""

    def __init__(self, delete: float) -> None:
        self.delete = TokenDeletion(delete)

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        own = rng.fold("view", 0)
        kept = self.delete.sample(own, batch.data)
        noisy = View(self.delete.apply(batch.data, kept), own, params=kept)
        return [noisy, View(batch.data, rng.fold("view", 1), role="original")]


def deletion(spec: Mapping[str, Any], *, delete: float = 0.6) -> DeletedViews:
    """TSDAE's best noise: 60 % of the tokens deleted."""
    return DeletedViews(delete)
