"""Everything that training would begin with, built and measured, and nothing trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ssl_core.domain import Domain
from ssl_core.recipe import Recipe
from ssl_core.runs.config import to_yaml
from ssl_core.runs.parts import build_parts, fitted_reader, split_data
from ssl_core.runs.picturing import show_views
from ssl_core.runs.planning import plan
from ssl_core.runs.pretraining import count_parameters, make_evaluator


def rehearsal(domain: Domain, recipe: Recipe, picture: Path) -> dict[str, Any]:
    """Recipe, data, sizes of the networks, the plan of a step on this machine; a few records' views
    drawn to `picture` or as `words`.

    Every name, option and record that training starts from is tried, on the CPU. Raises what
    training would raise.
    """
    split = split_data(domain, recipe.data)
    reader = fitted_reader(domain, split.train, recipe.data)
    parts = build_parts(domain, recipe, reader)
    evaluator = make_evaluator(recipe, split, parts, torch.device("cpu"))
    return {
        "recipe": to_yaml(recipe),
        "data": {**split.facts(), "called": domain.called(reader.spec)},
        "epochs": recipe.train.steps * recipe.train.batch_size / max(1, len(split.train)),
        "parameters": {
            "encoder": count_parameters(parts.encoder),
            "whole method": sum(p.numel() for p in parts.method.parameters() if p.requires_grad),
        },
        **show_views(domain, parts, evaluator, picture, seed=recipe.train.seed),
        "plan": plan(domain, recipe),
    }
