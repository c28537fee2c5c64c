"""Measures a finished run again: on its own hold-out, or on other data of the domain."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from ssl_core.runs.measures import checked, measure_more
from ssl_core.runs.parts import Parts, Split, split_data
from ssl_core.runs.pretraining import make_evaluator
from ssl_core.runs.rivals import Rivals
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
    more: Mapping[str, Mapping[str, Any]] | None = None,
    device: torch.device,
) -> dict[str, Any]:
    """Numbers for raw input, untrained and trained encoder; also written to `evaluation.json`."""
    if corruptions and not domain.corruptions:
        raise UserError(f"corruptions: ssl-{domain.name} has none to try")
    checked(domain, more or {}, path)
    compared = rivals_of(run, domain, path=path, source=source, device=device)
    evaluator, rivals = compared.evaluator, compared.rivals
    if (few_shot or corruptions) and not evaluator.labelled:
        raise UserError(
            "data: few labels and corruptions need labels on both sides of the hold-out"
        )
    found: dict[str, Any] = {
        "run": str(run.path),
        "data": {"path": compared.path, **compared.split.facts()},
        **compare(
            evaluator,
            rivals["trained"],
            *(measure(evaluator, rival, probe=probe) for rival in rivals.values()),
        ),
        **({"start": {"weights": run.recipe.start.weights}} if run.start_file.is_file() else {}),
        "corrupt": len(evaluator.corrupt),
        "versions": versions(domain.package.replace("_", "-"), *domain.libraries),
    }
    if few_shot:
        found["few_shot"] = {
            name: [
                asdict(accuracy_of_few(*rival.labelled(), shots=shots, seed=run.recipe.train.seed))
                for shots in few_shot
            ]
            for name, rival in rivals.items()
        }
    if corruptions:
        spoiled = Spoiled(domain, compared.parts, compared.another_evaluator())
        found["corruptions"] = {
            name: spoiled.measure(encoder, rivals[name])
            for name, encoder in compared.encoders.items()
        }
    found["more"] = measure_more(run, domain, device, more or {}, path=path)
    found["verdict"] = verdict(found)
    write_json(run.path / "evaluation.json", found)
    return found


@dataclass(frozen=True)
class Compared:
    """A run's three rivals on one data set, and what they were made with."""

    path: str | None
    split: Split
    parts: Parts
    evaluator: Evaluator
    encoders: Mapping[str, nn.Module]
    """The untrained and the trained encoder."""
    rivals: dict[str, Rival]
    """Raw input, untrained and trained encoder, in this order."""
    another_evaluator: Callable[[], Evaluator]


def rivals_of(
    run: Run,
    domain: Domain,
    *,
    path: str | None = None,
    source: Source | None = None,
    device: torch.device | str = "cpu",
) -> Compared:
    """Features of raw input, untrained and trained encoder, on the run's own data or on `path`.

    Other data is split as the run's own was: a bank, and queries whose keys are held out.
    """
    data = run.recipe.data.at(path)
    split = split_data(domain, data, source)
    found = Rivals.of(run, domain, device)

    def evaluator() -> Evaluator:
        return make_evaluator(run.recipe, split, found.parts, found.model.device)

    chosen = evaluator()
    untrained, raw = chosen.embed(found.encoders["untrained"], raw=True)
    assert raw is not None
    trained, _ = chosen.embed(found.encoders["trained"])
    rivals = {"raw": raw, "untrained": untrained, "trained": trained}
    return Compared(data.path, split, found.parts, chosen, found.encoders, rivals, evaluator)


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
