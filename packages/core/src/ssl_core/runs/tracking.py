"""Log records to TensorBoard or Weights & Biases, beside `metrics.jsonl`: one small class each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_core.engine.fit import Callback
from ssl_core.errors import UserError, unknown
from ssl_core.recipe import Recipe
from ssl_core.runs.folder import Run

NAMES = ("tensorboard", "wandb")


class TensorBoard:
    """Scalars under `RUN/tensorboard`."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        module = _import("torch.utils.tensorboard", "tensorboard")
        self._writer = module.SummaryWriter(str(run.path / "tensorboard"))
        self._writer.add_text("recipe", run.recipe_file.read_text(encoding="utf-8"))

    def on_start(self, step: int, steps: int) -> None:
        """Nothing to announce."""

    def on_log(self, record: dict[str, Any]) -> None:
        for name, value in numbers(record).items():
            self._writer.add_scalar(name, value, record["step"])

    def on_end(self, step: int) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A Weights & Biases run that a resumed training continues; its id is the folder's name."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        module = _import("wandb", "wandb")
        self._run = module.init(
            project=f"ssl-{recipe.domain}",
            id=run.path.resolve().name,
            resume="allow",
            dir=str(run.path),
            config=recipe.model_dump(mode="json"),
        )

    def on_start(self, step: int, steps: int) -> None:
        """Nothing to announce."""

    def on_log(self, record: dict[str, Any]) -> None:
        self._run.log(numbers(record), step=record["step"])

    def on_end(self, step: int) -> None:
        """Closed below."""

    def close(self) -> None:
        self._run.finish()


def trackers(names: Sequence[str], run: Run, recipe: Recipe) -> list[Callback]:
    """The sinks of these names; raises `UserError` for an unknown or a missing one."""
    made: list[Callback] = []
    for name in names:
        if name not in NAMES:
            raise unknown("track", name, NAMES)
        made.append((TensorBoard if name == "tensorboard" else WandB)(run, recipe))
    return made


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The entries of a record that can be plotted."""
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, (int, float)) and name not in ("step", "steps")
    }


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"track: {package} is not installed ({error}); pip install 'ssl-core[tracking]'"
        ) from error
