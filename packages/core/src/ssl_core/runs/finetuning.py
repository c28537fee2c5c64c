"""Fine-tuning: a linear head on the frozen encoder, then every layer from there.

Starting the head at the probe's optimum keeps the first steps from distorting good features
(Kumar et al. 2022, "Fine-tuning can distort pretrained features").
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_core import recipe as recipes
from ssl_core.batch import Batch, Reader, Source
from ssl_core.data import Loader, Stream, Subset
from ssl_core.distributed import rank, world_size
from ssl_core.domain import Domain
from ssl_core.engine.fit import Callback, FitResult, fit
from ssl_core.engine.parallel import process_group
from ssl_core.errors import UserError
from ssl_core.evaluation.heads import Head
from ssl_core.files import write_json
from ssl_core.methods.base import Loss, Method
from ssl_core.rng import Rng, shuffled
from ssl_core.runs.folder import Run
from ssl_core.runs.model import Model, load_model
from ssl_core.runs.parts import split_data
from ssl_core.runs.summary import percent, versions
from ssl_core.runs.targets import Targets
from ssl_core.runs.tasks import TASKS, Task, labelled_split
from ssl_core.tensors import write_tensors
from ssl_core.views import View, ViewPolicy


class LinearHead(Method):
    """An encoder with a linear head on its pooled features, trained for a `Task`.

    `goal` (float32 `[N, T]`) holds the targets of all training records by their row.
    """

    batch_coupled = False

    def __init__(
        self, encoder: nn.Module, views: ViewPolicy, *, task: Task, start: Head, goal: Tensor
    ) -> None:
        super().__init__(encoder, views)
        self.task = task
        self.head = nn.Linear(start.weight.shape[1], start.weight.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(start.weight)
            self.head.bias.copy_(start.bias)
        self.register_buffer("goal", goal, persistent=False)

    def views(self, batch: Batch, rng: Rng) -> list[View]:
        """One view a sample, carrying its target."""
        goal: Tensor = self.goal  # type: ignore[assignment]
        view = self.view_policy(batch, rng)[0]
        return [replace(view, params={**view.params, "goal": goal[batch.index]})]

    def encode(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Outputs `[B, outputs]` and targets `[B, T]`."""
        (features,) = self.features(views)
        return self.head(features.pooled), views[0].params["goal"]

    def loss(self, reps: tuple[Tensor, Tensor]) -> Loss:
        return self.task.loss(*reps)


def fit_repeated(
    method: Method,
    train: Source,
    reader: Reader,
    recipe: recipes.Recipe,
    settings: recipes.Train,
    *,
    lr: float,
    layer_decay: float | None,
    out: Path,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Trains what is not frozen; continues in `out` when interrupted.

    Few records fill a batch several times over, each time in another view.
    """
    rows = np.tile(np.arange(len(train)), -(-settings.batch_size // len(train)))
    return fit(
        method,
        finetune_loader(Subset(train, rows), reader, recipe, settings, out, device),
        train=settings,
        optimizer=recipes.Optimizer(lr=lr, layer_decay=layer_decay, clip=1.0),
        out=out,
        device=device,
        identity={"data": train.fingerprint(), "lr": lr, "layer_decay": layer_decay},
        callbacks=callbacks,
    )


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
    task: str = "classification",
    targets: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains a head of `TASKS` in `out`; continues there when interrupted. See `api.finetune`."""
    recipe, kind = run.recipe, TASKS[task]
    data = recipe.data
    data = data.at(path)
    with process_group(device):
        split = split_data(domain, data, source)
        told = kind.read(split.source, targets)
        rows, asked = labelled_split(told, split.train.indices, split.heldout.indices)
        rows = rows[few_rows(len(rows), labelled_records)]
        if len(rows) == 0 or len(asked) == 0:
            raise UserError(
                f"data: fine-tuning needs labelled records on both sides, found {len(rows)} to "
                f"train on and {len(asked)} held out; give class folders or a label column"
            )
        train, heldout = Subset(split.source, rows), Subset(split.source, asked)
        model = load_model(run, domain, device=device)
        chosen = kind(Targets(told.values[rows], told.names))
        bank = model.embed_source(train)
        start = chosen.start(bank.features, told.values[rows][bank.index], seed=recipe.train.seed)
        before = _scores(model, heldout, chosen, start.weight, start.bias, told.values[asked])
        method = LinearHead(
            model.encoder,
            policy_of(domain, recipe, model, views),
            task=chosen,
            start=start,
            goal=chosen.goal(told.values[rows]),
        )
        settings = finetune_settings(recipe, steps=steps, batch_size=min(batch_size, len(train)))
        optimizer = recipes.Optimizer(lr=lr, layer_decay=layer_decay, clip=1.0)
        result = fit(
            method,
            finetune_loader(train, model.reader, recipe, settings, out, device),
            train=settings,
            optimizer=optimizer,
            out=out,
            device=device,
            identity={
                "data": train.fingerprint(),
                "lr": lr,
                "layer_decay": layer_decay,
                "task": [task, *targets],
            },
            callbacks=callbacks,
        )
        weight, bias = (p.detach().double().cpu() for p in (method.head.weight, method.head.bias))
        after = _scores(model, heldout, chosen, weight, bias, told.values[asked])
        found = _outcome(run, out, chosen, before, after, result)
        if rank() == 0:
            _write(out, model, chosen.in_units(weight, bias), found)
    return found


def unread(out: Path) -> int:
    """Records that training in `out` could not read and has replaced."""
    file = Run(out).corrupt_file
    return len(file.read_bytes().splitlines()) if file.is_file() else 0


def few_rows(count: int, wanted: int | None, *, seed: int = 0) -> np.ndarray:
    """At most `wanted` of `count` rows, spread by a keyed permutation, in order."""
    chosen = count if wanted is None else min(count, wanted)
    return np.sort(shuffled(np.arange(chosen), max(1, count), "labelled records", seed))


def policy_of(
    domain: Domain, recipe: recipes.Recipe, model: Model, views: str | None
) -> ViewPolicy:
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


def _scores(
    model: Model, source: Source, task: Task, weight: Tensor, bias: Tensor, values: Tensor
) -> dict[str, float]:
    """Scores of a linear head on the deterministic view of `source`, whose targets are `values`."""
    found = model.embed_source(source)
    weight, bias = task.in_units(weight, bias)
    return task.scores(found.features.double() @ weight.T + bias, values[found.index])


def _outcome(
    run: Run,
    out: Path,
    task: Task,
    before: dict[str, float],
    after: dict[str, float],
    result: FitResult,
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "run": str(run.path),
        "out": str(out),
        "task": task.name,
        "scores": {"probe": before, "finetuned": after},
        "names": list(task.names),
        "steps": result.steps,
        "samples_per_second": result.samples_per_second,
        "wall_seconds": result.wall_seconds,
        "skipped": result.skipped,
        "corrupt": unread(out),
        "versions": versions(),
    }
    if "accuracy" in after:
        found["accuracy"] = {"probe": before["accuracy"], "finetuned": after["accuracy"]}
        found["classes"] = found["names"]
    return found


def _write(out: Path, model: Model, head: tuple[Tensor, Tensor], found: dict[str, Any]) -> None:
    """The encoder, the head with outputs in the targets' units, the outcome."""
    write_tensors(out / "model.safetensors", model.encoder.state_dict())
    weight, bias = (x.to(torch.float32) for x in head)
    facts = {"task": found["task"], "names": found["names"]}
    if "classes" in found:
        facts["classes"] = found["classes"]
    write_tensors(out / "head.safetensors", {"weight": weight, "bias": bias}, facts)
    write_json(out / "summary.json", found)


def finetune_protocol(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    path: str | None = None,
    steps: int = 500,
    lr: float = 1e-3,
    layer_decay: float | None = None,
    batch_size: int = 128,
    labelled: int | None = None,
) -> dict[str, Any]:
    """Held-out accuracy after fine-tuning every layer; the network itself is not kept."""
    with tempfile.TemporaryDirectory() as scratch:
        found = finetune_run(
            run,
            domain,
            path=path,
            out=Path(scratch),
            steps=steps,
            lr=lr,
            layer_decay=layer_decay,
            batch_size=batch_size,
            views=None,
            device=device,
            labelled_records=labelled,
        )
    probe, tuned = (found["accuracy"][name] for name in ("probe", "finetuned"))
    words = f"Fine-tuned for {steps} steps: {percent(tuned)} (linear probe {percent(probe)})."
    return {"probe": probe, "finetuned": tuned, "steps": steps, "words": words}
