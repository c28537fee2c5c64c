"""What can be measured of a finished run besides k-NN and probe: the core's and the domain's.

A measure is called as `function(run, domain, device, **options)`, in `evaluation.more` of a recipe
or by `evaluate --more`; one that takes `path` can measure on other data than the run's own.
What it finds may hold `words` for the verdict, and under `score` what `scored` makes: the verdict
then begins with this measure.
"""

from __future__ import annotations

import inspect
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.registry import Registry, check_options

if TYPE_CHECKING:
    from ssl_core.runs.folder import Run

MEASURES = {
    "few_label_finetune": "ssl_core.runs.few_labels:few_label_finetune",
    "finetune": "ssl_core.runs.finetuning:finetune_protocol",
    "layers": "ssl_core.runs.layer_probes:layers",
}
"""Measures of every domain."""


def measures_of(domain: Domain) -> Registry:
    """Every measure by name."""
    return Registry("evaluation.more", {**MEASURES, **domain.measures})


def checked(domain: Domain, asked: Mapping[str, Mapping[str, Any]], path: str | None) -> None:
    """Raises `UserError` for unknown names and options, before any work."""
    known = measures_of(domain)
    for name, options in asked.items():
        function = known.load(name)
        check_options(f"evaluation.more {name}", function, options, positional=3)
        if path is not None and "path" not in inspect.signature(function).parameters:
            raise UserError(f"data: {name} measures on the run's own data only; leave --data out")


def measure_more(
    run: Run,
    domain: Domain,
    device: torch.device | str,
    asked: Mapping[str, Mapping[str, Any]],
    *,
    path: str | None = None,
) -> dict[str, Any]:
    """What each measure found, on the run's own data or on `path`."""
    known = measures_of(domain)
    where = {} if path is None else {"path": path}
    return {
        name: known.load(name)(run, domain, torch.device(device), **{**options, **where})
        for name, options in asked.items()
    }


def scored(
    name: str, trained: Sequence[float], rivals: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """A measure's `score`: means of the trained encoder and of each rival, and their noise.

    All sequences hold one number a repetition (seed, split), in the same order; more is better.
    `noise` is two standard errors of the paired differences to the best rival; None for one
    repetition, which cannot tell.
    """
    means = {rival: statistics.fmean(values) for rival, values in rivals.items()}
    best = max(means, key=lambda rival: means[rival])
    gains = [mine - other for mine, other in zip(trained, rivals[best], strict=True)]
    spread = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else None
    return {
        "name": name,
        "trained": statistics.fmean(trained),
        "rivals": means,
        "best": best,
        "noise": None if spread is None else 2 * spread,
    }
