"""Everything that training would begin with, built and measured, and nothing trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_core.domain import Domain
from ssl_core.files import atomic_write
from ssl_core.recipe import Recipe
from ssl_core.report.pictures import png, stacked
from ssl_core.runs.config import to_yaml
from ssl_core.runs.parts import build_parts, fitted_reader, split_data
from ssl_core.runs.picturing import sketch
from ssl_core.runs.planning import plan
from ssl_core.runs.pretraining import count_parameters, make_evaluator

_ROWS = 6
_GAP = 6


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
    batch = evaluator.few(_ROWS)
    shown = {} if batch is None else sketch(domain, parts, batch, seed=recipe.train.seed)
    columns = {caption: stacked(drawn) for caption, (drawn, _) in shown.items() if drawn}
    if columns:
        atomic_write(picture, png(beside([*columns.values()])))
    return {
        "recipe": to_yaml(recipe),
        "data": split.facts(),
        "epochs": recipe.train.steps * recipe.train.batch_size / max(1, len(split.train)),
        "parameters": {
            "encoder": count_parameters(parts.encoder),
            "whole method": sum(p.numel() for p in parts.method.parameters() if p.requires_grad),
        },
        "picture": str(picture) if columns else None,
        "captions": list(columns),
        "words": {caption: told for caption, (_, told) in shown.items() if told},
        "plan": plan(domain, recipe),
    }


def beside(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures `[H, W]` or `[H, W, 3]` in one row on white, with a gap between them."""
    colour = [p if p.ndim == 3 else p[..., None].repeat(3, 2) for p in pictures]
    height = max(p.shape[0] for p in colour)
    edged = [
        np.pad(p, ((0, height - p.shape[0]), (0, _GAP), (0, 0)), constant_values=255)
        for p in colour
    ]
    whole: np.ndarray = np.concatenate(edged, axis=1)[:, :-_GAP]
    return whole
