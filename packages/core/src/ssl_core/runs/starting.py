"""Weights a run begins from, and the watch over what becomes of them."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from ssl_core.distributed import world_size
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.errors import UserError
from ssl_core.evaluation.rivals import KNN, RANK, VIEWS, Evaluator
from ssl_core.files import atomic_path, read_json, write_json
from ssl_core.networks.weights import WeightReport, load_best
from ssl_core.recipe import Recipe, Start
from ssl_core.runs.folder import Run
from ssl_core.runs.summary import SCORE_WORDS, shown
from ssl_core.tensors import read_tensors

_log = logging.getLogger("ssl_core.weights")


def keep_start(run: Run, recipe: Recipe) -> None:
    """Copies the weights a recipe starts from into the run folder, so that it needs no other.

    `start.weights` is a safetensors file or a finished run. Raises `UserError` for anything else.
    """
    given = recipe.start.weights
    if given is None or run.start_file.is_file():
        return
    source = Path(given).expanduser()
    if source.is_dir():
        source = Run.load(str(source)).weights
    if not source.is_file():
        raise UserError(f"start.weights: {given!r} is no safetensors file and no finished run")
    with atomic_path(run.start_file) as temporary:
        shutil.copyfile(source, temporary)


def load_start(encoder: nn.Module, file: Path, settings: Start) -> WeightReport:
    """Puts the kept weights into a fresh encoder; `UserError` below `start.minimum`."""
    return load_best(encoder, file, minimum=settings.minimum)


def tell(run: Run, report: WeightReport) -> None:
    """Says what was loaded, and writes all names to `start.json`."""
    _log.info("weights: %s", report)
    write_json(run.path / "start.json", {**asdict(report), "share": report.share})


def started(run: Run, recipe: Recipe, watched: dict[str, Any] | None) -> dict[str, Any]:
    """For the summary: which weights the run began from, and what the watch found."""
    if recipe.start.weights is None:
        return {}
    found = read_json(run.path / "start.json")
    counts = {name: len(found[name]) for name in ("matched", "missing", "mismatched", "unused")}
    return {"start": {"weights": recipe.start.weights, **counts, "watched": watched}}


@dataclass(frozen=True)
class Watch:
    """Whether a score has fallen too far below that of step 0.

    Called with each score taken in training; True asks training to stop.
    """

    first: float
    name: str
    settings: Start

    @classmethod
    def of(
        cls, recipe: Recipe, evaluator: Evaluator, first: Mapping[str, Any] | None
    ) -> Watch | None:
        """The watch a recipe asks for; raises `UserError` where there is nothing to watch.

        `first` is what was measured at step 0, on rank 0; the others hear of it.
        """
        if recipe.start.guard == "off":
            return None
        box: list[Any] = [first]
        if world_size() > 1:
            dist.broadcast_object_list(box, src=0)
        measured = box[0]
        # Only pairs of views have an alignment (`Evaluator.score_name`).
        views = VIEWS if "alignment" in measured else RANK
        name = KNN if evaluator.labelled else views
        if recipe.evaluation.every is None:
            raise UserError("start.guard: set evaluation.every, the steps between two looks")
        if name == RANK:
            raise UserError(
                "start.guard: without labels and random views there is no score to watch; give "
                "labelled data, or start.guard=off"
            )
        return cls(float(measured["score"]), name, recipe.start)

    def __call__(self, score: float) -> bool:
        return math.isnan(score) or score < self.first - self.settings.tolerance

    def settle(
        self, run: Run, encoder: nn.Module, evaluator: Evaluator, steps: int, total: int
    ) -> dict[str, Any]:
        """The final look: takes better weights back where training made them worse.

        With the guard "rollback" a score that fell too far brings back the best scored
        checkpoint, or the start where none was as good as that.
        """
        last = evaluator.score_of(encoder)
        kept = f"step {steps}"
        if self(last) and self.settings.guard == "rollback":
            checkpoints = Checkpoints(run.checkpoints)
            best = checkpoints.best()
            score = None if best is None else checkpoints.meta(best).score
            if best is not None and score is not None and score >= self.first:
                encoder.load_state_dict(read_tensors(checkpoints.path(best) / "model.safetensors"))
                kept = f"step {best}"
            else:
                load_best(encoder, run.start_file, minimum=self.settings.minimum)
                kept = "the start"
        found = {"first": self.first, "last": last, "steps": steps, "kept": kept}
        return {**found, "words": self._words(last, kept, steps, total)}

    def _words(self, last: float, kept: str, steps: int, total: int) -> str:
        name = SCORE_WORDS[self.name]
        moved = f"{name} went from {shown(self.name, self.first)} to {shown(self.name, last)}"
        early = f" after {steps} of {total} steps" if steps < total else ""
        if not self(last):
            return f"Watched against the start, {moved}{early}."
        taken = (
            f"the weights of {kept} were kept"
            if not kept.endswith(f" {steps}")
            else ("these weights were kept all the same")
        )
        return f"Training made the encoder worse: {moved}{early}; {taken}."
