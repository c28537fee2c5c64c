"""Measures a finished run again: on its own hold-out, or on other data of the domain."""

from __future__ import annotations

from typing import Any

import torch

from ssl_core.batch import Source
from ssl_core.domain import Domain
from ssl_core.files import write_json
from ssl_core.runs.folder import Run
from ssl_core.runs.model import load_model
from ssl_core.runs.parts import build_parts, split_data
from ssl_core.runs.pretraining import make_evaluator
from ssl_core.runs.summary import compare, measure, verdict, versions


def assess(
    run: Run,
    domain: Domain,
    *,
    path: str | None,
    source: Source | None,
    probe: bool,
    device: torch.device,
) -> dict[str, Any]:
    """Numbers for raw input, untrained and trained encoder; also written to `evaluation.json`.

    Other data is split as the run's own was: a bank, and queries whose keys are held out.
    """
    recipe = run.recipe
    data = recipe.data
    if path is not None:
        data = data.model_copy(update={"path": path, "format": "auto", "limit": None})
    split = split_data(domain, data, source)
    model = load_model(run, domain, device=device)
    parts = build_parts(domain, recipe, model.reader)
    evaluator = make_evaluator(recipe, split, parts, device)
    untrained, raw = evaluator.embed(parts.method.backbone.to(device), raw=True)
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
    found["verdict"] = verdict(found)
    write_json(run.path / "evaluation.json", found)
    return found
