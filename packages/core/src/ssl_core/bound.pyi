import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_core.batch import Source
from ssl_core.engine.fit import Callback
from ssl_core.recipe import Recipe
from ssl_core.runs.folder import Run

def pretrain(
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
    """See `ssl_core.api.pretrain`."""

def build_recipe(
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
    """See `ssl_core.api.build_recipe`."""

def adapt(
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
    """See `ssl_core.api.adapt`."""

def plan(
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    *,
    gpus: int = 1,
    gpu: str = "auto",
    **options: Any,
) -> dict[str, Any]:
    """See `ssl_core.api.plan`."""
