"""Will it fit, and how long will a step take: a recipe on devices that need not be there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Record
from ssl_core.data import Loader, Stream
from ssl_core.domain import Domain
from ssl_core.engine.estimate import Estimate, estimate
from ssl_core.engine.ledger import Ledger
from ssl_core.methods.base import Method
from ssl_core.recipe import Recipe
from ssl_core.rng import Rng
from ssl_core.runs.advice import advise
from ssl_core.runs.hardware import Device, device
from ssl_core.runs.parts import build_parts, fitted_reader, split_data
from ssl_core.views import View

MFU = (0.25, 0.6)
"""Share of the peak that products reach: what large models measure at worst and at best."""
FUSED = 0.5
"""Share of the counted traffic that remains where kernels are fused (`train.compile`)."""
_SAMPLES = 8
_IN_FLIGHT = 3
"""Batches held ready at once: the one in use and two ahead."""


@dataclass(frozen=True)
class Seen:
    """What a few real records taught: their views, and bytes a sample takes on its way."""

    views: list[View]
    rows: int
    decoded: float
    stored: float | None
    making: float
    """Most bytes that making views of one sample holds, the views included."""
    records: int


def plan(domain: Domain, recipe: Recipe, *, gpus: int = 1, gpu: str = "auto") -> dict[str, Any]:
    """Memory, FLOPs and time of one training step on `gpus` devices of a kind.

    Views are made of a few real records; the rest runs on tensors without storage. Raises what
    training would raise before its first step.
    """
    kind = device(gpu)
    Stream(1, recipe.train.batch_size, world=gpus, accumulate=recipe.train.accumulate)
    step, seen, counts = _one_step(domain, recipe, gpus)
    memory = _memory(step, seen, recipe, gpus, kind)
    return {
        "domain": domain.name,
        "method": recipe.method.name,
        "encoder": recipe.encoder.name,
        "gpus": gpus,
        "gpu": asdict(kind),
        "batch": {
            "global": recipe.train.batch_size,
            "device": recipe.train.batch_size // gpus,
            "micro": _rows(recipe, gpus),
        },
        "parameters": counts,
        "memory": memory,
        "flops": step.flops,
        "traffic": step.traffic,
        **_time(step, recipe, gpus, kind),
        "loader": _loader(step, seen, recipe, gpus, kind),
        "advice": advise(
            recipe,
            memory,
            gpus,
            lambda changed: _memory(*_one_step(domain, changed, gpus)[:2], changed, gpus, kind),
        ),
    }


def _rows(recipe: Recipe, gpus: int) -> int:
    return recipe.train.batch_size // (gpus * recipe.train.accumulate)


def _one_step(domain: Domain, recipe: Recipe, gpus: int) -> tuple[Estimate, Seen, dict[str, int]]:
    split = split_data(domain, recipe.data)
    reader = fitted_reader(domain, split.train, recipe.data)
    method = _weightless(domain, recipe, reader, len(split.train))
    rows = _rows(recipe, gpus)
    seen = _look(method, split.train, reader, recipe, rows)
    counts = {
        "trained": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "frozen": sum(p.numel() for p in method.parameters() if not p.requires_grad),
    }
    step = estimate(
        method,
        seen.views,
        rows=rows,
        train=recipe.train,
        optimizer=recipe.optimizer,
        world=gpus,
    )
    return step, seen, counts


def _weightless(domain: Domain, recipe: Recipe, reader: Any, records: int) -> Method:
    """The method without storage; where a constructor needs values, with them for a moment."""
    try:
        with torch.device("meta"):
            return build_parts(domain, recipe, reader, records=records).method
    except (RuntimeError, NotImplementedError):
        return build_parts(domain, recipe, reader, records=records).method


def _look(method: Method, source: Any, reader: Any, recipe: Recipe, rows: int) -> Seen:
    """Views of a few records; of a whole micro-batch where they do not stack row by row."""
    few = min(rows, _SAMPLES)
    views, decoded, making = _views(method, source, reader, recipe, few)
    if not _stackable(views, few):
        few = rows
        views, decoded, making = _views(method, source, reader, recipe, rows)
    each = making / few
    if few < rows and few > 1:  # what does not grow with the batch counts once
        _, _, half = _views(method, source, reader, recipe, few // 2)
        each = max(0.0, making - half) / (few - few // 2)
    sizes = [_stored(source[i]) for i in range(min(len(source), 32))]
    known = [size for size in sizes if size is not None]
    stored = sum(known) / len(known) if known else None
    return Seen(views, few, decoded / few, stored, each, len(source))


def _views(
    method: Method, source: Any, reader: Any, recipe: Recipe, rows: int
) -> tuple[list[View], int, int]:
    """Views of `rows` records, bytes of the batch, most bytes held while they were made."""
    loader = Loader(
        source,
        reader,
        Stream(len(source), rows, seed=recipe.train.seed),
        workers=0,
        cache="none",
        max_corrupt=1.0,
    )
    batch = next(iter(loader.batches(0, 1)))
    with torch.no_grad(), Ledger() as ledger:
        views = method.views(batch, Rng.at(recipe.train.seed, 0, batch.ids))
    data = sum(x.nbytes for x in _leaves(batch.data))
    return views, data, sum(ledger.peak.values())


def _leaves(data: Any) -> list[Tensor]:
    if isinstance(data, Tensor):
        return [data]
    if isinstance(data, (list, tuple)):
        return [x for part in data for x in _leaves(part)]
    return [x for x in getattr(data, "__dict__", {}).values() if isinstance(x, Tensor)]


def _stackable(views: list[View], rows: int) -> bool:
    """Whether every tensor of the views has one row a sample, so that more rows are like them."""
    return all(
        not isinstance(view.data, (list, tuple))
        and len(view) == rows
        and bool(leaves := _leaves(view.data))
        and all(x.dim() > 0 and x.shape[0] == rows for x in leaves)
        for view in views
    )


def _stored(record: Record) -> int | None:
    """Bytes of a record as they are read, where they are known."""
    payload = record.payload
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return len(payload)
    if isinstance(payload, (str, os.PathLike)) and os.path.isfile(payload):
        return os.path.getsize(payload)
    nbytes = getattr(payload, "nbytes", None)
    return nbytes if isinstance(nbytes, int) else None


def _memory(step: Estimate, seen: Seen, recipe: Recipe, gpus: int, kind: Device) -> dict[str, Any]:
    """Bytes of one device by what holds them, at the fullest moment of a step."""
    rows = _rows(recipe, gpus)
    parts = dict(step.peak)
    static = {k: v for k, v in step.kept.items() if k not in ("views", "workspace", "other")}
    making = round(seen.making * rows)
    if sum(static.values()) + making > sum(parts.values()):
        parts = static | {"views": making}  # before anything is encoded
    parts["data"] = round(seen.decoded * rows * _IN_FLIGHT)
    if kind.name == "cpu" and recipe.data.cache != "none":
        parts["cache"] = min(recipe.data.cache_bytes, round(seen.decoded * seen.records))
    parts["runtime"] = round(kind.reserve)
    total = sum(parts.values())
    order = sorted(parts, key=lambda name: -parts[name])
    return {
        "parts": {name: parts[name] for name in order},
        "total": total,
        "available": round(kind.memory),
        "fits": total <= 0.95 * kind.memory,
    }


def _time(step: Estimate, recipe: Recipe, gpus: int, kind: Device) -> dict[str, Any]:
    """Bounds of a step's seconds: everything overlaps at best, nothing does at worst."""
    peak = kind.flops(recipe.train.precision)
    products = [step.flops / (peak * share) for share in reversed(MFU)]
    moving = [share * step.traffic / kind.bandwidth for share in (FUSED, 1.0)]
    sent = 0.0
    if gpus > 1:  # a ring passes every byte twice; sharding gathers weights twice as well
        times = 3 if recipe.train.parallel == "fsdp" else 2
        weights = step.kept.get("parameters", 0) * (
            (recipe.train.shard or gpus) if recipe.train.parallel == "fsdp" else 1
        )
        sent = times * weights / kind.exchange
    low, high = max(products[0], moving[0], sent), products[1] + moving[1] + sent
    limits = {"compute": products[0], "memory bandwidth": moving[0], "exchange": sent}
    batch = recipe.train.batch_size
    return {
        "step_seconds": {"low": low, "high": high},
        "samples_per_second": {"low": batch / high, "high": batch / low},
        "bound": max(limits, key=lambda name: limits[name]),
    }


def _loader(
    step: Estimate, seen: Seen, recipe: Recipe, gpus: int, kind: Device
) -> Mapping[str, float | None]:
    """What each process's loader must deliver so that the fastest step never waits."""
    rate = _time(step, recipe, gpus, kind)["samples_per_second"]["high"] / gpus
    return {
        "samples_per_second": rate,
        "decoded_mb_per_second": rate * seen.decoded / 1e6,
        "stored_mb_per_second": None if seen.stored is None else rate * seen.stored / 1e6,
    }
