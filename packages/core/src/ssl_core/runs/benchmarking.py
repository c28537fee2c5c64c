"""How fast a recipe reads, makes views and trains on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ssl_core.batch import Batch
from ssl_core.data import Loader, Stream
from ssl_core.domain import Domain
from ssl_core.engine.optim import build_optimizer
from ssl_core.engine.parallel import choose_device
from ssl_core.engine.precision import autocast, sound_convolutions
from ssl_core.recipe import Recipe
from ssl_core.rng import Rng
from ssl_core.runs.parts import build_parts, fitted_reader, split_data

_FAR = 1_000_000_000


def benchmark(domain: Domain, recipe: Recipe, *, seconds: float) -> dict[str, Any]:
    """Rates of reading (decoding, no cache), of views, and of whole steps on one device.

    Each is measured alone for about `seconds` after one warm-up call.
    """
    device = choose_device(recipe.train.device)
    split = split_data(domain, recipe.data)
    reader = fitted_reader(domain, split.train, recipe.data)
    parts = build_parts(domain, recipe, reader, records=len(split.train))
    method = parts.method.to(device).train()
    sound_convolutions(method, device, recipe.train.precision)
    optimizer = build_optimizer(method, recipe.optimizer)
    size, seed = recipe.train.batch_size, recipe.train.seed
    loader = Loader(
        split.train,
        reader,
        Stream(len(split.train), size, seed=seed),
        device=device,
        workers=recipe.data.workers,
        worker_kind=recipe.data.worker_kind,
        cache="none",
        max_corrupt=1.0,
    )
    batches = loader.batches(0, _FAR)
    batch = next(batches)

    def step(number: int) -> None:
        method.before_step(number, _FAR)
        with torch.no_grad():
            views = method.views(batch, Rng.at(seed, number, batch.ids))
        with autocast(device, recipe.train.precision):
            loss = method(views)
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def views(number: int) -> None:
        with torch.no_grad():
            method.views(batch, Rng.at(seed, number, batch.ids))

    rates = {
        "reading": _rate(lambda _: next(batches), batch, seconds, device),
        "views": _rate(views, batch, seconds, device),
        "training step": _rate(step, batch, seconds, device),
    }
    batches.close()  # type: ignore[attr-defined]
    return {
        "method": recipe.method.name,
        "encoder": recipe.encoder.name,
        "batch_size": size,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "workers": recipe.data.workers,
        "rates": rates,
        "bound": _bound(rates),
    }


def _rate(
    call: Callable[[int], Any], batch: Batch, seconds: float, device: torch.device
) -> dict[str, float]:
    """Mean over as many calls as fit into `seconds`, at least two."""
    call(0)
    _wait(device)
    began, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - began < seconds:
        calls += 1
        call(calls)
    _wait(device)
    each = (time.perf_counter() - began) / calls
    return {"samples_per_second": len(batch) / each, "milliseconds": 1000 * each}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _bound(rates: dict[str, dict[str, float]]) -> str:
    reading, step = (rates[key]["samples_per_second"] for key in ("reading", "training step"))
    if reading < step:
        return (
            f"reading is the limit ({reading:.0f} of {step:.0f} samples/s the training could "
            "take): raise data.workers, or let the cache hold the decoded data"
        )
    share = rates["views"]["milliseconds"] / rates["training step"]["milliseconds"]
    return f"training is the limit; views take {100 * min(1.0, share):.0f} % of a step"
