"""The folder a training writes, as an object.

recipe.yaml         what was asked for, complete
run.json            domain, data facts, versions at the start
reader/             how records were read (sizes, channels, a tokenizer)
metrics.jsonl       one record a log point
checkpoints/        training state, newest few and the best
model.safetensors   the trained backbone
corrupt.jsonl       records that could not be read, when there were any
baselines.json      what raw input and the untrained encoder reach
summary.json        the outcome
start.safetensors   weights the run began from, where it did not begin with random numbers
pictures/           views of held-out records, what was hidden of them and predicted
gallery/            held-out records as points: places, neighbours, small pictures or words
report.html         the outcome, to look at
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.files import read_json
from ssl_core.recipe import Recipe
from ssl_core.runs.config import parse, validate


@dataclass(frozen=True)
class Run:
    """A run folder; nothing is read before it is asked for."""

    path: Path

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """The run in a folder; raises `UserError` when there is none."""
        run = cls(Path(path))
        if not run.exists:
            raise UserError(
                f"run: {str(path)!r} is not a run folder (it has no recipe.yaml); "
                "give the folder that pretrain printed"
            )
        return run

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return self.recipe_file.is_file()

    @property
    def finished(self) -> bool:
        """Whether training and evaluation were completed."""
        return self.summary_file.is_file()

    @property
    def started(self) -> bool:
        """Whether there is any training to lose."""
        return self.finished or self.metrics_file.is_file() or self.checkpoints.is_dir()

    @property
    def recipe_file(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def facts_file(self) -> Path:
        return self.path / "run.json"

    @property
    def reader_folder(self) -> Path:
        return self.path / "reader"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def start_file(self) -> Path:
        return self.path / "start.safetensors"

    @property
    def corrupt_file(self) -> Path:
        return self.path / "corrupt.jsonl"

    @property
    def baselines_file(self) -> Path:
        return self.path / "baselines.json"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def pictures_folder(self) -> Path:
        return self.path / "pictures"

    def pictures(self) -> list[tuple[str, Path]]:
        """(caption, PNG file) of what the method saw, in order."""
        files = sorted(self.pictures_folder.glob("*.png"))
        return [(file.stem.partition(" ")[2], file) for file in files]

    def texts(self) -> list[tuple[str, list[str]]]:
        """(caption, one text a record) of what the method saw, where records are read."""
        files = sorted(self.pictures_folder.glob("*.json"))
        return [(file.stem.partition(" ")[2], list(read_json(file))) for file in files]

    @property
    def gallery_folder(self) -> Path:
        return self.path / "gallery"

    def gallery(self) -> dict[str, Any] | None:
        """Held-out records as points (see `runs.gallery`); None where there are none."""
        file = self.gallery_folder / "points.json"
        found: dict[str, Any] | None = read_json(file) if file.is_file() else None
        return found

    @property
    def sprite_file(self) -> Path:
        """The small pictures of the gallery's records, side by side in one PNG file."""
        return self.gallery_folder / "pictures.png"

    def finetuned(self) -> list[Path]:
        """Folders inside the run that hold finished networks which `finetune` made from it."""
        heads = sorted(self.path.glob("*/head.safetensors"))
        return [head.parent for head in heads if (head.parent / "summary.json").is_file()]

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    @property
    def recipe(self) -> Recipe:
        """The recipe the run was started with."""
        return validate(parse(self.recipe_file.read_text(encoding="utf-8"), str(self.recipe_file)))

    @property
    def facts(self) -> dict[str, Any]:
        """Domain, data and versions, as found when the run started."""
        return self._json(self.facts_file)

    @property
    def summary(self) -> dict[str, Any]:
        """The outcome; raises `UserError` while the run is unfinished."""
        return self._json(self.summary_file)

    def _json(self, file: Path) -> dict[str, Any]:
        if not file.is_file():
            raise UserError(
                f"run: {str(self.path)!r} has no {file.name}; finish it with `resume {self.path}`"
            )
        content: dict[str, Any] = read_json(file)
        return content

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, oldest first; a torn last line is left out."""
        return _lines(self.metrics_file)

    def corrupt(self) -> list[dict[str, Any]]:
        """Records that could not be read, with reasons."""
        return _lines(self.corrupt_file)

    def domain(self) -> Domain:
        """The domain the run belongs to."""
        return resolve(self.facts.get("domain"))


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    records = []
    for line in file.read_text(encoding="utf-8").split("\n"):
        try:
            records.append(json.loads(line))
        except ValueError:  # the empty end, or a line that a kill cut off
            continue
    return records


def resolve(spec: str | Domain | None) -> Domain:
    """A domain from "module:NAME"; raises `UserError` when it cannot be imported."""
    if isinstance(spec, Domain):
        return spec
    module, _, name = (spec or "").partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"domain: {spec!r} cannot be imported ({error}); install its package, "
            "or give the domain object yourself"
        ) from error
    if not isinstance(found, Domain):
        raise UserError(f"domain: {spec!r} is a {type(found).__name__}, not a Domain")
    return found


def locate(domain: Domain) -> str | None:
    """The "module:NAME" under which a domain can be imported again, if it can."""
    module = type(domain).__module__
    for name, value in vars(sys.modules.get(module, object)).items():
        if value is domain:
            return f"{module}:{name}"
    return None
