"""Measures a finished run again: on its own hold-out, or on other data of the domain."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from ssl_core.batch import Source
from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.evaluation.few_shot import few_shot as accuracy_of_few
from ssl_core.evaluation.rivals import Evaluator, Rival
from ssl_core.files import write_json
from ssl_core.runs.folder import Run
from ssl_core.runs.model import load_model
from ssl_core.runs.parts import Parts, build_parts, split_data
from ssl_core.runs.pretraining import make_evaluator
from ssl_core.runs.summary import compare, measure, verdict, versions


def assess(
    run: Run,
    domain: Domain,
    *,
    path: str | None,
    source: Source | None,
    probe: bool,
    few_shot: Sequence[int] = (),
    corruptions: bool = False,
    device: torch.device,
) -> dict[str, Any]:
    """Numbers for raw input, untrained and trained encoder; also written to `evaluation.json`.

    Other data is split as the run's own was: a bank, and queries whose keys are held out.
    """
    recipe = run.recipe
    data = recipe.data
    if path is not None:
        data = data.model_copy(update={"path": path, "format": "auto", "limit": None})
    if corruptions and not domain.corruptions:
        raise UserError(f"corruptions: ssl-{domain.name} has none to try")
    split = split_data(domain, data, source)
    model = load_model(run, domain, device=device)
    parts = build_parts(domain, recipe, model.reader)
    evaluator = make_evaluator(recipe, split, parts, device)
    if (few_shot or corruptions) and not evaluator.labelled:
        raise UserError(
            "data: few labels and corruptions need labels on both sides of the hold-out"
        )
    fresh = parts.method.backbone.to(device)
    untrained, raw = evaluator.embed(fresh, raw=True)
    assert raw is not None
    trained, _ = evaluator.embed(model.encoder)
    found: dict[str, Any] = {
        "run": str(run.path),
        "data": {"path": data.path, **split.facts()},
        **compare(
            evaluator,
            trained,
            measure(evaluator, raw, probe=probe),
            measure(evaluator, untrained, probe=probe),
            measure(evaluator, trained, probe=probe),
        ),
        "corrupt": len(evaluator.corrupt),
        "versions": versions(domain.package.replace("_", "-"), *domain.libraries),
    }
    rivals = {"raw": raw, "untrained": untrained, "trained": trained}
    if few_shot:
        found["few_shot"] = {
            name: [
                asdict(accuracy_of_few(*rival.labelled(), shots=shots, seed=recipe.train.seed))
                for shots in few_shot
            ]
            for name, rival in rivals.items()
        }
    if corruptions:
        spoiled = Spoiled(domain, parts, make_evaluator(recipe, split, parts, device))
        found["corruptions"] = {
            "untrained": spoiled.measure(fresh, untrained),
            "trained": spoiled.measure(model.encoder, trained),
        }
    found["verdict"] = verdict(found)
    write_json(run.path / "evaluation.json", found)
    return found


class Spoiled:
    """Scores held-out records under the domain's corruptions, against a clean bank."""

    def __init__(self, domain: Domain, parts: Parts, evaluator: Evaluator) -> None:
        self.domain, self.parts, self.evaluator = domain, parts, evaluator

    def measure(self, encoder: nn.Module, clean: Rival) -> dict[str, Any]:
        """Accuracy on clean input, by corruption and severity, and the mean over all of them."""
        table = {
            name: [self._score(encoder, clean, name, severity) for severity in severities]
            for name, severities in self.domain.corruptions.items()
        }
        return {
            "clean": self.evaluator.score(clean),
            "corrupted": table,
            "mean": statistics.mean(value for row in table.values() for value in row),
        }

    def _score(self, encoder: nn.Module, clean: Rival, name: str, severity: int) -> float:
        self.evaluator.views = self.domain.corrupted(
            self.parts.views, self.parts.spec, name, severity
        )
        queries = self.evaluator.queries(encoder)
        return self.evaluator.score(
            Rival(clean.bank, clean.bank_labels, queries.features, queries.labels)
        )
