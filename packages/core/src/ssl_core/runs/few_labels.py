"""Does a pretrained encoder pay where it is trained on: fine-tuning with few labels, both ways.

`evaluation.more: {few_label_finetune: {}}` trains every layer from the run's last step and from
its first, on the same few labelled records, and asks both about all held-out ones. It is how
masked models are used; their frozen features say little of them (He et al., CVPR 2022).
"""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_core.batch import Source
from ssl_core.data import Subset, decode_all
from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.evaluation.embed import Embedding, embed
from ssl_core.evaluation.few_shot import chosen
from ssl_core.runs.finetuning import LinearHead, finetune_settings, fit_repeated, policy_of
from ssl_core.runs.folder import Run
from ssl_core.runs.measures import scored
from ssl_core.runs.parts import split_data
from ssl_core.runs.rivals import ORDER, Rivals
from ssl_core.runs.targets import Targets
from ssl_core.runs.tasks import Classification, labelled_split

Scores = dict[str, list[float]]
_NAMES = {"raw": "raw input", "untrained": "from scratch", "trained": "from this encoder"}


def few_label_finetune(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    labels: int | Sequence[int] = 10,
    draws: int = 3,
    steps: int = 100,
    batch_size: int = 64,
    lr: float = 1e-3,
    path: str | None = None,
) -> dict[str, Any]:
    """Held-out accuracy after fine-tuning on `labels` records a class, for each of `draws`.

    Both encoders see the same records, and heads begin at the linear probe of the frozen features,
    as in `finetune`. The rivals are the encoder as it began, trained the same way ("untrained"),
    and a linear probe of the input ("raw") on those records. Draws are keyed by the run's seed.
    Several numbers of `labels` give a table, one row each; the first is the score. Data without
    labels has nothing to measure, and the words say so; `draws` 0 measures nothing.
    """
    counts = [labels] if isinstance(labels, int) else list(labels)
    if not counts or any(not isinstance(n, int) or n < 1 for n in counts):
        raise UserError(f"few_label_finetune.labels: {labels!r} is no number of records a class")
    if draws == 0:
        return {}
    split = split_data(domain, run.recipe.data.at(path))
    targets = Classification.read(split.source, ())
    rows, asked = labelled_split(targets, split.train.indices, split.heldout.indices)
    classes = targets.values[rows, 0].unique()
    if len(classes) < 2 or len(asked) == 0:
        return {"words": "Fine-tuning with few labels was not measured: there are no labels."}
    settings = {"steps": steps, "batch_size": batch_size, "lr": lr}
    comparison = _Comparison(run, Rivals.of(run, domain, device), split.source, targets, settings)
    each = [comparison.draws(rows, asked, count, draws) for count in counts]
    scores: Scores = each[0]
    rivals = {_NAMES[name]: scores[name] for name in ORDER[:2]}
    name = f"accuracy fine-tuned on {counts[0]} a class"
    table: list[dict[str, Any]] = [
        {"labels": count, "each": found, **{n: statistics.fmean(x) for n, x in found.items()}}
        for count, found in zip(counts, each, strict=True)
    ]
    head = ["labels a class", *(_NAMES[name] for name in ORDER)]
    cells = [[str(row["labels"]), *(_spread(row["each"][n]) for n in ORDER)] for row in table]
    return {
        "rows": table,
        "score": scored(name, scores["trained"], rivals),
        "table": (head, cells),
        "words": _words(counts[0], scores),
    }


@dataclass(frozen=True)
class _Comparison:
    """The records, the run's encoders, and how they are trained."""

    run: Run
    rivals: Rivals
    source: Source
    targets: Targets
    settings: dict[str, Any]

    def draws(self, rows: np.ndarray, asked: np.ndarray, labels: int, draws: int) -> Scores:
        """Accuracy of each rival for each draw of `labels` records a class among `rows`."""
        seed = self.run.recipe.train.seed
        known = self.targets.values[rows, 0].numpy()
        found: Scores = {name: [] for name in ORDER}
        for draw in range(draws):
            own = np.sort(rows[chosen(known, labels, seed, draw)])
            for name, accuracy in self._of(Subset(self.source, own), own, asked).items():
                found[name].append(accuracy)
        return found

    def _of(self, train: Source, own: np.ndarray, asked: np.ndarray) -> dict[str, float]:
        """Accuracy of each rival with these labelled records."""
        goals, truth = self.targets.values[own], self.targets.values[asked]
        task = Classification(Targets(goals, self.targets.names))
        heldout = Subset(self.source, asked)
        bank, queries = self.rivals.features(train), self.rivals.features(heldout)
        found = {}
        for name in ORDER:
            at = bank[name]
            start = task.start(at.features, goals[at.index], seed=self.run.recipe.train.seed)
            weight, bias, features = start.weight, start.bias, queries[name]
            if name != "raw":
                method = LinearHead(
                    copy.deepcopy(self.rivals.encoders[name]).requires_grad_(True),
                    policy_of(self.rivals.model.domain, self.run.recipe, self.rivals.model, None),
                    task=task,
                    start=start,
                    goal=task.goal(goals),
                )
                self._tune(method, train)
                weight, bias = (p.detach().double().cpu() for p in method.head.parameters())
                features = self._embedded(method.encoder, heldout)
            outputs = features.features.double() @ weight.T + bias
            found[name] = task.scores(outputs, truth[features.index])["accuracy"]
        return found

    def _tune(self, method: LinearHead, train: Source) -> None:
        recipe, given = self.run.recipe, self.settings
        settings = finetune_settings(recipe, steps=given["steps"], batch_size=given["batch_size"])
        with tempfile.TemporaryDirectory() as scratch:
            fit_repeated(
                method,
                train,
                self.rivals.model.reader,
                recipe,
                settings,
                lr=given["lr"],
                layer_decay=None,
                out=Path(scratch),
                device=self.rivals.model.device,
            )

    def _embedded(self, encoder: nn.Module, source: Source) -> Embedding:
        model = self.rivals.model
        batches = decode_all(source, model.reader, batch_size=256, device=model.device)
        return embed(encoder, model.views, batches)


def _spread(values: Sequence[float]) -> str:
    percents = [100 * value for value in values]
    mean = f"{statistics.fmean(percents):.1f}"
    return f"{mean} ± {statistics.stdev(percents):.1f}" if len(percents) > 1 else mean


def _words(labels: int, scores: Scores) -> str:
    said = ", ".join(f"{_NAMES[name]} {_spread(scores[name])}" for name in ORDER)
    return f"Fine-tuned on {labels} labels a class, accuracy in percent: {said}."
