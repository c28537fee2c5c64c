"""The rivals of a run as functions of texts: bag of tokens, TF-IDF, untrained and trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.domain import Domain
from ssl_core.errors import CorruptSample, UserError
from ssl_core.runs.folder import Run
from ssl_core.runs.model import load_model
from ssl_core.runs.parts import build_parts
from ssl_text.reader import TextReader

ORDER = ("raw", "tfidf", "untrained", "trained")


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
        model = load_model(run, domain, device=device)
        assert isinstance(model.reader, TextReader), "the text domain's reader"
        self.reader = model.reader
        self.device = device
        parts = build_parts(domain, run.recipe, model.reader, training=False)
        untrained = parts.method.backbone.to(device).eval()
        self.encoders: dict[str, nn.Module] = {"untrained": untrained, "trained": model.encoder}

    @torch.no_grad()
    def vectors(self, texts: Sequence[str], *, batch_size: int = 128) -> dict[str, Tensor]:
        """Features `[N, D]` on the CPU: "raw" (bags of tokens), "untrained" and "trained"."""
        found: dict[str, list[Tensor]] = {"raw": [], "untrained": [], "trained": []}
        for first in range(0, len(texts), batch_size):
            part = texts[first : first + batch_size]
            data = self.reader.collate([self._sample(text) for text in part]).to(self.device)
            found["raw"].append(self.reader.raw(data).cpu())
            for name, encoder in self.encoders.items():
                found[name].append(encoder(data).pooled.float().cpu())
        return {name: torch.cat(rows) for name, rows in found.items()}

    def _sample(self, text: str) -> Tensor:
        try:
            return self.reader.encode(text, key=repr(text[:40]))
        except CorruptSample as error:
            raise UserError(str(error)) from error


def described(what: str, scores: dict[str, float]) -> str:
    """The rivals' scores in a sentence for the verdict."""
    titles = {
        "raw": "bag of tokens",
        "tfidf": "TF-IDF",
        "untrained": "untrained",
        "trained": "trained",
    }
    shown = [f"{titles[name]} {100 * scores[name]:.1f}" for name in ORDER if name in scores]
    return f"{what} (x 100): {', '.join(shown)}."
