"""Shipped recipes as tables."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssl_core.domain import Domain
from ssl_core.recipe import Recipe
from ssl_core.runs.config import assembled, recipe_names, shipped


@dataclass(frozen=True)
class Shipped:
    """One shipped recipe, complete: what it leaves open comes from its domain's default."""

    domain: str
    name: str
    recipe: Recipe
    description: str

    @property
    def optimiser(self) -> str:
        """The optimiser in few words."""
        found = self.recipe.optimizer
        return f"{found.name}, lr {found.lr:g}, weight decay {found.weight_decay:g}"

    @property
    def budget(self) -> str:
        """Steps and batch."""
        return f"{self.recipe.train.steps:,} × {self.recipe.train.batch_size:,}"


@functools.cache
def _of(domain: Domain) -> tuple[Shipped, ...]:
    found = []
    for name in recipe_names(domain):
        description = str(shipped(domain, name).get("description") or "")
        found.append(Shipped(domain.name, name, assembled(domain, name), description))
    return tuple(found)


def recipes_of(domains: Mapping[str, Domain], method: str) -> list[Shipped]:
    """Every shipped recipe of a method, domain by domain."""
    return [
        entry
        for domain in domains.values()
        for entry in _of(domain)
        if entry.recipe.method.name == method
    ]


def all_recipes(domains: Mapping[str, Domain]) -> list[Shipped]:
    """Every shipped recipe."""
    return [entry for domain in domains.values() for entry in _of(domain)]


def short(value: Any) -> str:
    """A value of a recipe as one writes it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(short, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {short(v)}" for key, v in value.items()) + "}"
    return str(value)
