"""Fine-tuning: a linear probe on the frozen encoder, then every layer from there.

Starting the head at the probe's optimum keeps the first steps from distorting good features
(Kumar et al. 2022, "Fine-tuning can distort pretrained features").
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core import recipe as recipes
from ssl_core.batch import Batch, Reader, Source
from ssl_core.data import Loader, Stream, Subset, labels_of
from ssl_core.distributed import rank, world_size
from ssl_core.domain import Domain
from ssl_core.engine.fit import Callback, FitResult, fit
from ssl_core.engine.parallel import process_group
from ssl_core.errors import UserError
from ssl_core.evaluation.probe import Probe, linear_probe
from ssl_core.files import write_json
from ssl_core.methods.base import Loss, Method
from ssl_core.rng import Rng, shuffled
from ssl_core.runs.folder import Run
from ssl_core.runs.model import Model, load_model
from ssl_core.runs.parts import split_data
from ssl_core.runs.summary import versions
from ssl_core.tensors import write_tensors
from ssl_core.views import View, ViewPolicy


class Classifier(Method):
    """Cross-entropy of a linear head on pooled features; classes by the rows of `weight`."""

    batch_coupled = False

    def __init__(self, encoder: nn.Module, views: ViewPolicy, *, probe: Probe) -> None:
        super().__init__(encoder, views)
        self.head = nn.Linear(probe.weight.shape[1], probe.weight.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(probe.weight))
            self.head.bias.copy_(torch.from_numpy(probe.bias))
        self.register_buffer("classes", torch.from_numpy(probe.classes.astype(np.int64)))

    def views(self, batch: Batch, rng: Rng) -> list[View]:
        """One view a sample, carrying its class."""
        assert batch.label is not None
        classes: Tensor = self.classes  # type: ignore[assignment]
        target = torch.searchsorted(classes, batch.label)  # classes are sorted and complete
        view = self.view_policy(batch, rng)[0]
        return [replace(view, params={**view.params, "class": target})]

    def encode(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Logits `[B, classes]` and targets `[B]`."""
        (features,) = self.features(views)
        return self.head(features.pooled), views[0].params["class"]

    def loss(self, reps: tuple[Tensor, Tensor]) -> Loss:
        logits, target = reps
        right = (logits.detach().argmax(dim=1) == target).float().mean()
        loss = F.cross_entropy(logits, target)
        return Loss.of({"cross_entropy": loss}, metrics={"accuracy": right})


def finetune_run(
    run: Run,
    domain: Domain,
    *,
    path: str | None,
    out: Path,
    steps: int,
    lr: float,
    layer_decay: float | None,
    batch_size: int,
    views: str | None,
    device: torch.device,
    labelled_records: int | None = None,
    source: Source | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Trains a classifier in `out`; continues there when interrupted. See `api.finetune`."""
    recipe = run.recipe
    data = recipe.data
    if path is not None:
        data = data.model_copy(update={"path": path, "format": "auto", "limit": None})
    with process_group(device):
        split = split_data(domain, data, source)
        train, heldout = labelled(split.train), labelled(split.heldout)
        train = Subset(train, few_rows(len(train), labelled_records))
        if len(train) == 0 or len(heldout) == 0:
            raise UserError(
                f"data: fine-tuning needs labelled records on both sides, found {len(train)} to "
                f"train on and {len(heldout)} held out; give class folders or a label column"
            )
        model = load_model(run, domain, device=device)
        bank = model.embed_source(train)
        probe = linear_probe(bank.features, bank.labels, seed=recipe.train.seed)
        before = _accuracy(model, heldout, probe.weight, probe.bias, probe.classes)
        method = Classifier(model.encoder, _policy(domain, recipe, model, views), probe=probe)
        settings = finetune_settings(recipe, steps=steps, batch_size=min(batch_size, len(train)))
        optimizer = recipes.Optimizer(lr=lr, layer_decay=layer_decay, clip=1.0)
        result = fit(
            method,
            finetune_loader(train, model.reader, recipe, settings, out, device),
            train=settings,
            optimizer=optimizer,
            out=out,
            device=device,
            identity={"data": train.fingerprint(), "lr": lr, "layer_decay": layer_decay},
            callbacks=callbacks,
        )
        head = method.head.cpu()
        weight, bias = (p.detach().double().numpy() for p in (head.weight, head.bias))
        after = _accuracy(model, heldout, weight, bias, probe.classes)
        found = _outcome(run, split.source, out, before, after, probe, result)
        if rank() == 0:
            _write(out, model, method, found)
    return found


def few_rows(count: int, wanted: int | None, *, seed: int = 0) -> np.ndarray:
    """At most `wanted` of `count` rows, spread by a keyed permutation, in order."""
    chosen = count if wanted is None else min(count, wanted)
    return np.sort(shuffled(np.arange(chosen), max(1, count), "labelled records", seed))


def labelled(source: Source) -> Subset:
    """The records that have a label."""
    return Subset(source, np.flatnonzero(labels_of(source) >= 0))


def _policy(domain: Domain, recipe: recipes.Recipe, model: Model, views: str | None) -> ViewPolicy:
    """The named policy; else the domain's gentlest random one; else the run's own.

    It makes views of the size the encoder was trained on.
    """
    name = views or next((n for n in ("weak", "none") if n in domain.views), None)
    if name is None:
        return model.views
    taken = inspect.signature(domain.views.load(name)).parameters
    kept = {k: v for k, v in recipe.views.options.items() if k == "size" and k in taken}
    return domain.create_views(name, model.reader.spec, kept)


def finetune_settings(recipe: recipes.Recipe, *, steps: int, batch_size: int) -> recipes.Train:
    """The run's engine settings for a short training without accumulation."""
    size = max(world_size(), batch_size - batch_size % world_size())
    return recipe.train.model_copy(
        update={"steps": steps, "batch_size": size, "accumulate": 1, "save_every": max(1, steps)}
    )


def finetune_loader(
    train: Source,
    reader: Reader,
    recipe: recipes.Recipe,
    settings: recipes.Train,
    out: Path,
    device: torch.device,
) -> Loader:
    """Batches of `train` as the run's data options read them."""
    stream = Stream(
        len(train), settings.batch_size, seed=settings.seed, rank=rank(), world=world_size()
    )
    return Loader(
        train,
        reader,
        stream,
        device=device,
        workers=recipe.data.workers,
        worker_kind=recipe.data.worker_kind,
        cache=recipe.data.cache,
        cache_bytes=recipe.data.cache_bytes,
        max_corrupt=recipe.data.max_corrupt,
        corrupt_log=out / "corrupt.jsonl",
    )


def _accuracy(
    model: Model, source: Source, weight: np.ndarray, bias: np.ndarray, classes: np.ndarray
) -> float:
    """Share of right predictions of a linear head on the deterministic view."""
    found = model.embed_source(source)
    logits = found.features.double().numpy() @ weight.T + bias
    return float(np.mean(classes[logits.argmax(axis=1)] == found.labels.numpy()))


def _outcome(
    run: Run,
    source: Source,
    out: Path,
    before: float,
    after: float,
    probe: Probe,
    result: FitResult,
) -> dict[str, Any]:
    names = source.classes
    return {
        "run": str(run.path),
        "out": str(out),
        "accuracy": {"probe": before, "finetuned": after},
        "classes": [str(c) if names is None else names[c] for c in probe.classes.tolist()],
        "steps": result.steps,
        "samples_per_second": result.samples_per_second,
        "wall_seconds": result.wall_seconds,
        "skipped": result.skipped,
        "versions": versions(),
    }


def _write(out: Path, model: Model, method: Classifier, found: dict[str, Any]) -> None:
    write_tensors(out / "model.safetensors", model.encoder.state_dict())
    facts = {"classes": found["classes"]}
    write_tensors(out / "head.safetensors", method.head.state_dict(), facts)
    write_json(out / "summary.json", found)
