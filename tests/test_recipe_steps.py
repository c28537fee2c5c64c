"""Every recipe that a laptop is meant to run takes its first step, as it is shipped.

Recipes stand on their domain's default and inherit what they do not say: one that is valid, and
whose parts can be built, may still ask for what its views do not give.
"""

from __future__ import annotations

import functools
import importlib

import pytest
import torch

from ssl_core.batch import Batch
from ssl_core.data import Loader, Stream
from ssl_core.domain import Domain
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_core.runs.config import build, recipe_names
from ssl_core.runs.parts import build_parts, fitted_reader, split_data

LONGEST = 3000
"""Steps of a recipe for a laptop; those of published systems take more."""
DOMAINS = ("audio", "graph", "medical", "text", "video", "vision")
TAUGHT = ("seed", "feature_distillation", "beats_tokenizer", "beats_again")  # by a run of the user


def domain_of(name: str) -> Domain:
    found: Domain = getattr(importlib.import_module(f"ssl_{name}.domain"), name.upper())
    return found


def laptop_recipes() -> list[tuple[str, str]]:
    return [
        (domain, name)
        for domain in DOMAINS
        for name in recipe_names(domain_of(domain))
        if not name.startswith(TAUGHT) and build(domain_of(domain), name).train.steps <= LONGEST
    ]


@functools.lru_cache(maxsize=4)
def first_batch(domain: str, data: str, size: int) -> tuple[object, Batch, int]:
    """Reader, batch and number of records; recipes of one domain mostly read the same."""
    where = Data.model_validate_json(data)
    split = split_data(domain_of(domain), where)
    reader = fitted_reader(domain_of(domain), split.train, where)
    with Loader(
        split.train, reader, Stream(len(split.train), size), workers=0, cache="none"
    ) as loader:
        return reader, next(iter(loader.batches(0, 1))), len(split.train)


@pytest.mark.parametrize(("domain", "name"), laptop_recipes())
def test_a_recipe_takes_its_first_step(domain: str, name: str) -> None:
    recipe = build(domain_of(domain), name)
    size = recipe.train.batch_size
    reader, batch, records = first_batch(domain, recipe.data.model_dump_json(), size)
    torch.manual_seed(0)
    parts = build_parts(domain_of(domain), recipe, reader, records=records)
    method = parts.method.train()
    method.before_step(0, recipe.train.steps)
    with torch.no_grad():
        views = method.views(batch, Rng.at(recipe.train.seed, 0, batch.ids))
    loss = method(views)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    gradients = [p.grad for p in method.encoder.parameters() if p.grad is not None]
    assert gradients, "nothing reaches the encoder"
    assert all(torch.isfinite(grad).all() for grad in gradients)
