"""The recipe of continued pretraining: that of the weights' own run, with guard rails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.recipe import Recipe
from ssl_core.runs.config import load_layer, merge, validate
from ssl_core.runs.folder import Run
from ssl_core.tensors import read_facts

Layer = Mapping[str, Any]
LOOKS = 10
"""How often a run's score is taken, unless the recipe says otherwise."""


def continued(
    domain: Domain,
    start: Any,
    recipe: Any,
    *,
    method: str | None,
    encoder: str | None,
) -> tuple[Any, str | None]:
    """What `build_recipe` gets as recipe and encoder name for weights at `start`.

    A run's own recipe without its data, unless another recipe or method is asked for; of that,
    and of exported files, only the encoder with its options. Raises `UserError` where nobody says
    which encoder the weights are of.
    """
    path = Path(start).expanduser()
    if path.is_dir():
        own = Run.load(str(path)).recipe
        if own.domain != domain.name:
            raise UserError(f"start: {str(path)!r} is a run of ssl-{own.domain}")
        layer = own.model_dump(mode="json")
        del layer["start"]
        layer["data"] = {k: v for k, v in layer["data"].items() if k not in ("path", "format")}
        if recipe is None and method in (None, own.method.name):
            return layer, encoder
        named: dict[str, Any] = layer["encoder"]
    else:
        if not path.is_file():
            raise UserError(f"start: {str(start)!r} is no safetensors file and no finished run")
        named = _facts(path).get("encoder", {})
    if encoder is not None or not named:
        if encoder is None and not isinstance(recipe, (Recipe, Mapping, str, Path)):
            raise UserError(
                f"encoder: {str(start)!r} does not say which network its weights are of; name it "
                "with --encoder"
            )
        return recipe, encoder
    named = {key: value for key, value in named.items() if key != "weights"}
    if recipe is None or isinstance(recipe, Mapping):
        return merge(recipe or {}, {"encoder": named}), None
    if isinstance(recipe, Recipe):
        return merge(recipe.model_dump(mode="json"), {"encoder": named}), None
    return merge(load_layer(domain, recipe), {"encoder": named}), None


def _facts(path: Path) -> dict[str, Any]:
    """What an exported file says about itself; nothing for files of others."""
    try:
        found = read_facts(path)
    except Exception:  # metadata of other programs is free text; damage is reported on loading
        return {}
    return found if isinstance(found.get("encoder"), dict) else {}


def guarded(
    recipe: Recipe,
    start: str,
    *,
    guard: str,
    anchor: float,
    frozen: float,
    given: Iterable[Layer],
) -> Recipe:
    """The recipe with its start and guard rails; what `given` sets stays."""
    set_by_user: dict[str, Any] = {}
    for layer in given:
        set_by_user = merge(set_by_user, layer)
    path = str(Path(start).expanduser().resolve())
    content = recipe.model_dump(mode="json")
    rails: dict[str, Any] = {
        "start": {"weights": path, "guard": guard, "anchor": anchor, "frozen": frozen},
        "optimizer": {"lr": recipe.optimizer.lr / 10},
    }
    if recipe.evaluation.every is None:
        rails["evaluation"] = {"every": max(1, recipe.train.steps // LOOKS)}
    return validate(merge(merge(content, rails), set_by_user))
