"""An experiment: the grid of runs it asks for and what is measured on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssl_core.data.heads import digest
from ssl_core.errors import UserError, unknown
from ssl_core.files import to_json


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Grid(_Section):
    """Every combination of these is one run."""

    domains: list[str] = Field(min_length=1)
    recipes: list[str] = Field(default=["default"], min_length=1)
    """Shipped recipes by name; each domain must have each of them."""
    encoders: list[str] = []
    """Encoders instead of the recipe's own; empty: the recipe's."""
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    variants: dict[str, list[str]] = {}
    """Name -> recipe values such as `optimizer.lr=1e-3`; empty: the recipe as it is."""


class Experiment(_Section):
    """A question, the runs that answer it, the measurements."""

    title: str
    question: str = ""
    grid: Grid
    steps: int | dict[str, int] | None = None
    """Optimiser steps of every run, or by domain; None: each recipe's own."""
    settings: dict[str, list[str]] = {}
    """Recipe values by domain, below those of a variant."""
    tasks: int | None = Field(None, ge=2)
    """Divide the classes into so many parts and learn from one after another, `steps` each."""
    label_fractions: list[float] = []
    """Also fit linear probes on these shares of the labels."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    domain: str
    recipe: str
    encoder: str | None
    variant: str | None
    settings: tuple[str, ...]
    seed: int
    steps: int | None
    label_fractions: tuple[float, ...]
    tasks: int | None = None

    @property
    def name(self) -> str:
        """A folder name: readable, and with a hash of everything that matters to the numbers."""
        words = [self.domain, self.recipe, self.encoder, self.variant, f"seed{self.seed}"]
        readable = "-".join(word.replace("/", "_").replace(" ", "_") for word in words if word)
        return f"{readable}-{digest([to_json(asdict(self))])[:8]}"


def cells(experiment: Experiment) -> list[Cell]:
    """The grid's runs, seed by seed, so that a table of all rows fills early."""
    grid = experiment.grid
    variants: Mapping[str | None, list[str]] = grid.variants or {None: []}
    return [
        Cell(
            domain,
            recipe,
            encoder,
            variant,
            (*experiment.settings.get(domain, ()), *variants[variant]),
            seed,
            _steps(experiment, domain),
            tuple(experiment.label_fractions),
            experiment.tasks,
        )
        for seed, domain, recipe, encoder, variant in product(
            grid.seeds, grid.domains, grid.recipes, grid.encoders or [None], variants
        )
    ]


def _steps(experiment: Experiment, domain: str) -> int | None:
    if isinstance(experiment.steps, dict):
        return experiment.steps.get(domain)
    return experiment.steps


def shipped() -> list[str]:
    """Names of the experiments that come with the package."""
    folder = resources.files("ssl_lab") / "experiments"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load(name: str) -> Experiment:
    """An experiment by a shipped name or from a YAML file; `UserError` says what is wrong."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise UserError(f"experiment: no file {name!r}")
        text, where = path.read_text(encoding="utf-8"), name
    else:
        if name not in shipped():
            raise unknown("experiment", name, shipped())
        text = (resources.files("ssl_lab") / "experiments" / f"{name}.yaml").read_text("utf-8")
        where = f"experiment {name}"
    return parse(text, where)


def _explained(error: Any) -> str:
    """One pydantic error as `key: what is wrong`."""
    place = ".".join(map(str, error["loc"])) or "content"
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]}"


def parse(text: str, where: str) -> Experiment:
    """The experiment a YAML text describes."""
    try:
        content = yaml.safe_load(text)
        experiment = Experiment.model_validate(content)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        lines = [f"{where}: {_explained(found)}" for found in error.errors()]
        raise UserError("\n".join(lines)) from None
    for section, names in (("settings", experiment.settings), ("steps", experiment.steps)):
        for name in names if isinstance(names, dict) else ():
            if name not in experiment.grid.domains:
                raise unknown(f"{where}: {section}", name, experiment.grid.domains)
    for fraction in experiment.label_fractions:
        if not 0 < fraction <= 1:
            raise UserError(f"{where}: label_fractions: {fraction} does not lie in (0, 1]")
    return experiment
