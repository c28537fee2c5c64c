"""Learning from one part of the classes after another, as when new data keeps coming.

The classes are divided, in the order of their labels, into equal tasks. One method with one
optimiser learns from task after task, `steps` each, and never sees the ones before again. After
each, k-NN accuracy is taken on the held-out records of every task. What the rate does at a border
is the question (Singh et al. 2025, arXiv 2503.02844): a schedule that knows its end begins anew
with every task and warms up again; `optimizer.infinite` stays at its constant rate. Its annealing
of A steps makes a model to use, and is left again: of each task's steps the last A are taken on a
copy of the run, and the next task continues from before them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core import api
from ssl_core.batch import Source
from ssl_core.data.heads import labels_of
from ssl_core.data.subset import Subset
from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.evaluation.knn import knn_accuracy
from ssl_core.evaluation.rivals import KNN, Rival
from ssl_core.files import atomic_folder, read_json, write_json
from ssl_core.recipe import Recipe
from ssl_core.runs.assessing import rivals_of
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import open_data

_MAY_CHANGE = ["data", "steps", "infinite"]


def learn(domain: Domain, recipe: Recipe, tasks: int, folder: Path) -> dict[str, Any]:
    """Trains what is left of all tasks in `folder`; returns the row of the results.

    `recipe` is that of one task. Each finished task leaves a `task-<number>.json`, so that the
    same call continues after an interruption. Raises `UserError` for data without labels.
    """
    source = open_data(domain, recipe.data)
    classes = divided(labels_of(source), tasks)
    found: list[dict[str, Any]] = []
    for number, wanted in enumerate(classes, 1):
        file = folder / f"task-{number}.json"
        if not file.is_file():
            part = Subset(source, np.flatnonzero(np.isin(labels_of(source), wanted)))
            runs = _train(domain, recipe, number, part, folder)
            seconds = sum(run.summary["wall_seconds"] for run in runs)
            write_json(file, {"seconds": seconds, **_after(runs[-1], domain, source, classes)})
        found.append(read_json(file))
    return _row(found, recipe, _used(folder, tasks))


def divided(labels: np.ndarray, tasks: int) -> list[np.ndarray]:
    """The labels that occur, in order, in `tasks` parts whose sizes differ by one at most."""
    known = np.unique(labels[labels >= 0])
    if len(known) < 2 * tasks:
        raise UserError(
            f"tasks: {tasks} tasks need two classes each, the data has {len(known)} classes"
        )
    return np.array_split(known, tasks)


def _train(domain: Domain, recipe: Recipe, number: int, part: Source, folder: Path) -> list[Run]:
    """Goes on in `folder`/run with this task's part; with annealing, on a copy of it as well."""
    infinite = recipe.optimizer.infinite
    anneal = 0 if infinite is None else infinite.anneal
    each = recipe.train.steps - anneal
    if each < 1:
        raise UserError(f"infinite.anneal: {anneal} steps leave none of {recipe.train.steps}")
    trunk = _changed(recipe, number * each, anneal=0, cycle=each)
    runs = [api.pretrain(domain, trunk, out=folder / "run", source=part, progress=False)]
    if anneal:
        branch = _branch(folder, number)
        if not branch.is_dir():
            with atomic_folder(branch) as temporary:
                shutil.copytree(runs[0].path, temporary, dirs_exist_ok=True)
        last = _changed(recipe, number * each + anneal, anneal=anneal, cycle=each)
        runs.append(api.pretrain(domain, last, out=branch, source=part, progress=False))
        if number > 1:
            shutil.rmtree(_branch(folder, number - 1), ignore_errors=True)
    return runs


def _branch(folder: Path, number: int) -> Path:
    return folder / f"annealed-{number}"


def _used(folder: Path, tasks: int) -> Run:
    """The run that stands at the end: the annealed copy where there is one."""
    branch = _branch(folder, tasks)
    return Run(branch if branch.is_dir() else folder / "run")


def _changed(recipe: Recipe, steps: int, *, anneal: int, cycle: int) -> Recipe:
    """The recipe up to `steps`; a schedule that has an end begins anew every `cycle` steps."""
    infinite = recipe.optimizer.infinite
    rates: dict[str, Any] = (
        {"cycle": cycle}
        if infinite is None
        else {"infinite": infinite.model_copy(update={"anneal": anneal})}
    )
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update={"steps": steps, "allow": (*_MAY_CHANGE,)}),
            "optimizer": recipe.optimizer.model_copy(update=rates),
        }
    )


def _after(
    run: Run, domain: Domain, source: Source, classes: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Accuracies over all classes and within each task, for raw input and both encoders."""
    compared = rivals_of(run, domain, source=source)
    settings = run.recipe.evaluation

    def accuracy(rival: Rival, wanted: np.ndarray | None = None) -> float:
        bank, labels, queries, asked = rival.labelled()
        if wanted is not None:
            here, there = _among(labels, wanted), _among(asked, wanted)
            bank, labels, queries, asked = bank[here], labels[here], queries[there], asked[there]
        return knn_accuracy(
            bank, labels, queries, asked, k=settings.k, temperature=settings.temperature
        )

    return {
        "all": {name: accuracy(rival) for name, rival in compared.rivals.items()},
        "tasks": [
            {name: accuracy(rival, wanted) for name, rival in compared.rivals.items()}
            for wanted in classes
        ],
        "effective_rank": compared.evaluator.geometry(compared.rivals["trained"])["effective_rank"],
    }


def _among(labels: Tensor, wanted: np.ndarray) -> Tensor:
    return torch.isin(labels, torch.from_numpy(wanted).to(labels.dtype))


def _row(found: Sequence[Mapping[str, Any]], recipe: Recipe, run: Run) -> dict[str, Any]:
    """What the results table keeps."""
    after = [[task["trained"] for task in stage["tasks"]] for stage in found]
    final = found[-1]
    return {
        "score_name": KNN,
        **{f"score_{name}": value for name, value in final["all"].items()},
        "effective_rank": final["effective_rank"],
        "parameters": run.summary["parameters"],
        "steps": len(found) * recipe.train.steps,
        "wall_seconds": sum(stage["seconds"] for stage in found),
        "verdict": f"{len(found)} tasks, one after another",
        "tasks": {
            "after": after,
            "all": [stage["all"]["trained"] for stage in found],
            "untrained": [task["untrained"] for task in final["tasks"]],
            "raw": [task["raw"] for task in final["tasks"]],
            "average": sum(after[-1]) / len(after[-1]),
            "forgetting": forgetting(after),
        },
        "rates": [[record["step"], record["lr"]] for record in run.metrics()],
    }


def forgetting(after: Sequence[Sequence[float]]) -> float:
    """How far accuracy on earlier tasks fell below its best, averaged over them.

    `after[i][j]` is the accuracy on task j after task i. Only values from when a task had been
    learned count as its best (Chaudhry et al., ECCV 2018).
    """
    last = len(after) - 1
    falls = [max(after[i][j] for i in range(j, last)) - after[last][j] for j in range(last)]
    return sum(falls) / len(falls)
