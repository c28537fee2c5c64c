"""The rivals of a run as functions of texts: bag of tokens, TF-IDF, untrained and trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.data import ArraySource, Failure
from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.runs.folder import Run
from ssl_core.runs.rivals import Rivals, told
from ssl_text.reader import TextReader

NAMES = {
    "raw": "bag of tokens",
    "tfidf": "TF-IDF",
    "untrained": "untrained",
    "trained": "trained",
}
"""Rivals in the order in which they are told, and what they are called."""


def tf_idf(bank: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Bags of tokens `[N, V]` weighted by the logarithm of how few rows of `bank` hold each token.

    The smoothed form log((1 + N) / (1 + n)) + 1 of scikit-learn; rows are L2-normed, so that the
    scale of the given rows does not matter.
    """
    holding = (bank > 0).sum(0)
    weight = ((1 + len(bank)) / (1 + holding)).log() + 1
    return tuple(F.normalize(rows * weight, dim=1) for rows in (bank, *others))


class TextRivals:
    """The two encoders of a finished run and the features they have to beat."""

    def __init__(self, run: Run, domain: Domain, device: torch.device) -> None:
        self.rivals = Rivals.of(run, domain, device)
        reader = self.rivals.model.reader
        assert isinstance(reader, TextReader), "the text domain's reader"
        self.reader = reader

    @property
    def encoders(self) -> Mapping[str, nn.Module]:
        """The untrained and the trained one."""
        return self.rivals.encoders

    def vectors(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Features `[N, D]` on the CPU: "raw" (bags of tokens), "untrained" and "trained".

        A text without tokens raises `UserError`.
        """
        source = ArraySource(texts, keys=[repr(text[:40]) for text in texts])
        found = self.rivals.features(source, batch_size=128, on_corrupt=_refuse)
        return {name: rows.features for name, rows in found.items()}


def _refuse(failure: Failure) -> None:
    raise UserError(failure.reason)


def described(what: str, scores: Mapping[str, float]) -> str:
    """The rivals' scores in a sentence for the verdict."""
    return f"{what} (x 100): {told(scores, NAMES)}."
