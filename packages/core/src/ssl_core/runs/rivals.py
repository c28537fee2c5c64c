"""A finished run's encoders beside what they have to beat, on any records: what measures ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ssl_core.batch import Source
from ssl_core.data import Failure, decode_all
from ssl_core.domain import Domain
from ssl_core.evaluation.embed import Embedding, embed
from ssl_core.runs.folder import Run
from ssl_core.runs.model import Model, load_model
from ssl_core.runs.parts import Parts, build_parts, open_data

ORDER = ("raw", "untrained", "trained")
"""The input itself, the encoder as training began, and as it ended."""


@dataclass(frozen=True)
class Rivals:
    """The untrained and the trained encoder of a run, and how its input becomes features."""

    model: Model
    parts: Parts
    """The run's networks as training began."""
    encoders: Mapping[str, nn.Module]
    """"untrained" and "trained", in evaluation mode."""

    @classmethod
    def of(cls, run: Run, domain: Domain, device: torch.device | str = "cpu") -> Rivals:
        """Both encoders on `device`; a run that began from weights has these for untrained."""
        device = torch.device(device)
        model = load_model(run, domain, device=device)
        parts = build_parts(domain, run.recipe, model.reader, training=False, start=run.start_file)
        untrained = parts.method.backbone.to(device).eval()
        return cls(model, parts, {"untrained": untrained, "trained": model.encoder})

    def open(self, path: str | None = None, **options: Any) -> Source:
        """The run's own data, or that at `path`, whole, with some of `data.options` changed.

        None takes an option out.
        """
        data = self.model.recipe.data
        left = {k: v for k, v in {**data.options, **options}.items() if v is not None}
        changed = data.at(path).model_copy(update={"limit": None, "options": left})
        return open_data(self.model.domain, changed)

    def features(
        self,
        source: Source,
        *,
        batch_size: int = 256,
        on_corrupt: Callable[[Failure], None] | None = None,
    ) -> dict[str, Embedding]:
        """All records under every rival, in `ORDER`; unreadable ones go to `on_corrupt`."""
        found: dict[str, Embedding] = {}
        model = self.model
        for name, encoder in self.encoders.items():
            batches = decode_all(
                source,
                model.reader,
                batch_size=batch_size,
                device=model.device,
                on_corrupt=on_corrupt,
            )
            raw = model.reader if name == "untrained" else None
            found[name] = embed(encoder, model.views, batches, raw=raw)
        inputs = found["untrained"].raw
        assert inputs is not None or len(found["untrained"]) == 0
        own = found["untrained"].features[:, :0] if inputs is None else inputs
        return {"raw": replace(found["untrained"], features=own, raw=None), **found}


def told(scores: Mapping[str, float], names: Mapping[str, str] | None = None) -> str:
    """Scores of rivals in words, a hundred times each: "raw 35.9, untrained 62.8, trained 84.4".

    `names` says in which order rivals are told and what they are called; by default `ORDER`.
    """
    called = {name: name for name in ORDER} if names is None else names
    return ", ".join(
        f"{called[name]} {100 * scores[name]:.1f}" for name in called if name in scores
    )
