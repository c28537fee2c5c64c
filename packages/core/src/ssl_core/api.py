"""The Python interface: what every domain package offers under its own name.

import ssl_vision
run = ssl_vision.pretrain(data="photos", method="dino", steps=2000, out="runs/photos")
vectors = ssl_vision.load(run).embed(["a.jpg", "b.jpg"])
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_core.batch import Source
from ssl_core.domain import Domain
from ssl_core.engine.fit import Callback
from ssl_core.engine.parallel import choose_device
from ssl_core.errors import UserError
from ssl_core.recipe import Recipe
from ssl_core.registry import Registry
from ssl_core.runs import config
from ssl_core.runs.adapting import continued, guarded
from ssl_core.runs.assessing import assess
from ssl_core.runs.exporting import export_run
from ssl_core.runs.folder import Run, resolve
from ssl_core.runs.model import Model, load_model
from ssl_core.runs.pretraining import train
from ssl_core.runs.progress import progress_callbacks
from ssl_core.runs.tasks import TASKS

RunLike = Run | str | os.PathLike[str]


def pretrain(
    domain: Domain | str,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    method: str | None = None,
    encoder: str | None = None,
    views: str | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    out: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | Iterable[str] = (),
    source: Source | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    track: Sequence[str] = (),
) -> Run:
    """Pretrains an encoder and returns the finished run.

    Arguments:
        recipe: a `Recipe`, a mapping, a YAML file, a run folder or a shipped recipe's name; what
            it leaves open comes from the domain's default and the method's own recipe.
        data: what to train on; None is the embedded data. `source` is an open source instead.
        settings: any recipe value by its path: `{"optimizer.lr": 1e-3}` or `["optimizer.lr=1e-3"]`.
        out: the run folder. If it holds an unfinished run of the same recipe, that continues; if
            a finished one, that is returned.
        progress: a progress line on stderr; by default when stderr is a terminal.
        track: "tensorboard", "wandb" or both: where log records go beside `metrics.jsonl`.

    Raises `UserError` before any long work when a name, key or value is wrong.
    """
    found = resolve(domain)
    built = build_recipe(
        found,
        recipe,
        data=data,
        method=method,
        encoder=encoder,
        views=views,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        settings=settings,
    )
    target = None if out is None else Path(out)
    watchers = [*callbacks, *progress_callbacks(progress)]
    return train(found, built, out=target, source=source, callbacks=watchers, track=track)


def build_recipe(
    domain: Domain | str,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    method: str | None = None,
    encoder: str | None = None,
    views: str | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | Iterable[str] = (),
) -> Recipe:
    """The complete recipe that `pretrain` would run with these arguments."""
    flags: dict[str, dict[str, Any]] = {
        "data": {"path": None if data is None else os.fspath(data)},
        "method": {"name": method},
        "encoder": {"name": encoder},
        "views": {"name": views},
        "train": {"steps": steps, "batch_size": batch_size, "seed": seed, "device": device},
    }
    return config.build(
        resolve(domain), recipe, flags=_given(flags), assignments=_assignments(settings)
    )


def adapt(
    domain: Domain | str,
    start: str | os.PathLike[str],
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    method: str | None = None,
    encoder: str | None = None,
    out: str | os.PathLike[str] | None = None,
    guard: str = "rollback",
    anchor: float = 0.01,
    frozen: float = 0.1,
    settings: Mapping[str, Any] | Iterable[str] = (),
    source: Source | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    track: Sequence[str] = (),
    **flags: Any,
) -> Run:
    """Continues pretraining from good weights, on other data, without spoiling them.

    Arguments:
        start: a finished run, whose recipe is the default then, or a safetensors file; the encoder
            is the run's, the one an export names, or `encoder`.
        frozen: share of the steps in which only the new heads learn.
        anchor: weight of the pull of the encoder towards its start (L2-SP).
        guard: "rollback", "stop" or "off": what to do when the score, taken ten times a run, falls
            below that of step 0.
        flags: as of `build_recipe` (steps, batch_size, views, seed, device).

    The learning rate is a tenth of the recipe's unless `settings` sets `optimizer.lr`.
    """
    found = resolve(domain)
    base, chosen = continued(found, start, recipe, method=method, encoder=encoder)
    built = build_recipe(
        found, base, data=data, method=method, encoder=chosen, settings=settings, **flags
    )
    given = _assignments(settings)
    built = guarded(
        built,
        os.fspath(start),
        guard=guard,
        anchor=anchor,
        frozen=frozen,
        given=[config.expanded(config.assignment(a) if isinstance(a, str) else a) for a in given],
    )
    target = None if out is None else Path(out)
    watchers = [*callbacks, *progress_callbacks(progress)]
    return train(found, built, out=target, source=source, callbacks=watchers, track=track)


def plan(
    domain: Domain | str,
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    gpus: int = 1,
    gpu: str = "auto",
    **options: Any,
) -> dict[str, Any]:
    """Memory, FLOPs and time of a training step on `gpus` devices of a kind, without training.

    Arguments: `gpu` is "cpu", "auto" (what this machine has) or a name in `runs.hardware`; the
    rest is what `build_recipe` takes. Returns what `ssl-<domain> plan --json` prints.
    """
    from ssl_core.runs.planning import plan as planned

    found = resolve(domain)
    return planned(found, build_recipe(found, recipe, **options), gpus=gpus, gpu=gpu)


def resume(
    run: RunLike,
    *,
    source: Source | None = None,
    domain: Domain | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> Run:
    """Finishes an interrupted run, to the same bits as if it had not been interrupted."""
    found = as_run(run)
    return train(
        _domain_of(found, domain),
        found.recipe,
        out=found.path,
        source=source,
        callbacks=[*callbacks, *progress_callbacks(progress)],
    )


def load(run: RunLike, *, device: str = "auto", domain: Domain | None = None) -> Model:
    """The trained encoder of a run, ready to embed."""
    found = as_run(run)
    return load_model(found, _domain_of(found, domain), device=choose_device(device))


def evaluate(
    run: RunLike,
    data: str | os.PathLike[str] | None = None,
    *,
    probe: bool = True,
    few_shot: Sequence[int] = (),
    corruptions: bool = False,
    more: Mapping[str, Mapping[str, Any]] | None = None,
    device: str = "auto",
    source: Source | None = None,
    domain: Domain | None = None,
) -> dict[str, Any]:
    """Measures a run again, on its own data or on other: k-NN, linear probe, retrieval, geometry.

    `few_shot` adds a linear classifier fitted on so many labelled records of each class,
    `corruptions` accuracy on input that the domain spoils, and `more` other protocols by name with
    their options ("finetune" everywhere, `{"finetune": {"steps": 200}}`). Returns numbers for raw
    input, untrained and trained encoder (see `summary.json`); also written to `evaluation.json`.
    """
    found = as_run(run)
    path = None if data is None else os.fspath(data)
    return assess(
        found,
        _domain_of(found, domain),
        path=path,
        source=source,
        probe=probe,
        few_shot=few_shot,
        corruptions=corruptions,
        more=more,
        device=choose_device(device),
    )


def finetune(
    run: RunLike,
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    steps: int = 500,
    lr: float = 1e-3,
    layer_decay: float | None = None,
    batch_size: int = 128,
    views: str | None = None,
    task: str = "classification",
    targets: Sequence[str] = (),
    labelled: int | None = None,
    device: str = "auto",
    source: Source | None = None,
    domain: Domain | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> dict[str, Any]:
    """Trains a head on the run's encoder: a linear probe first, then every layer.

    `task` is "classification", "multilabel", "regression", or another use that the domain offers
    (segmentation); `targets` names columns of the data that say what is to be learned (default:
    its labels); `labelled` trains on at most so many labelled records.
    `data` defaults to the run's own. Returns held-out scores of the probe and of the fine-tuned
    network, and where it was written (default `<run>/finetune`).
    """
    found = as_run(run)
    domain = _domain_of(found, domain)
    tasks = {**dict.fromkeys(TASKS, "ssl_core.runs.finetuning:finetune_run"), **domain.tasks}
    train_task = Registry("task", tasks).load(task)
    options: dict[str, Any] = {}
    if task in TASKS and task not in domain.tasks:
        options = {"task": task, "targets": tuple(targets)}
    elif targets:
        raise UserError(f"target: task {task!r} has targets of its own; leave the columns out")
    return train_task(  # type: ignore[no-any-return]
        found,
        domain,
        path=None if data is None else os.fspath(data),
        out=found.path / "finetune" if out is None else Path(out),
        steps=steps,
        lr=lr,
        layer_decay=layer_decay,
        batch_size=batch_size,
        views=views,
        device=choose_device(device),
        labelled_records=labelled,
        source=source,
        callbacks=[*callbacks, *progress_callbacks(progress)],
        **options,
    )


def export(
    run: RunLike,
    path: str | os.PathLike[str],
    *,
    format: str = "safetensors",
    domain: Domain | None = None,
) -> Path:
    """Writes the trained encoder for other programs, proves it and writes a model card beside it.

    Formats: "safetensors" and "timm" (one file), "onnx" and the domain's own (a folder).
    """
    found = as_run(run)
    return export_run(found, _domain_of(found, domain), Path(path), format=format)


def as_run(run: RunLike) -> Run:
    """A run from itself or its folder."""
    return run if isinstance(run, Run) else Run.load(os.fspath(run))


def _domain_of(run: Run, domain: Domain | None) -> Domain:
    """The run's domain; one that is given must be it."""
    if domain is None:
        return run.domain()
    belongs = run.recipe.domain
    if belongs != domain.name:
        raise UserError(f"run: {str(run.path)!r} holds {belongs}, use ssl-{belongs} for it")
    return domain


def bound(domain: str) -> dict[str, Callable[..., Any]]:
    """The functions of this module for one domain, by name: what its package re-exports."""
    return {
        "pretrain": _with_domain(pretrain, domain),
        "adapt": _with_domain(adapt, domain),
        "resume": resume,
        "load": load,
        "evaluate": evaluate,
        "finetune": finetune,
        "export": export,
        "plan": _with_domain(plan, domain),
        "build_recipe": _with_domain(build_recipe, domain),
    }


def _with_domain(function: Callable[..., Any], domain: str) -> Callable[..., Any]:
    """`function` with its first argument filled in, and the signature and help that are left."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return function(domain, *args, **options)

    signature = inspect.signature(function)
    rest = list(signature.parameters.values())[1:]
    call.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
    return call


def _given(flags: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The flags that were set."""
    sections = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in flags.items()
    }
    return {section: values for section, values in sections.items() if values}


def _assignments(settings: Mapping[str, Any] | Iterable[str]) -> list[Any]:
    if isinstance(settings, Mapping):
        return [config.nested(key.split("."), value) for key, value in settings.items()]
    return list(settings)
