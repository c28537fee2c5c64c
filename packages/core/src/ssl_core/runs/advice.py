"""What to switch on when a recipe does not fit, each with what it would bring."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ssl_core.errors import UserError
from ssl_core.recipe import Recipe

Memory = Mapping[str, Any]
# What grows with the rows a device works on at once.
_GROWING = ("activations", "views", "loss", "workspace", "data")


def advise(
    recipe: Recipe, memory: Memory, gpus: int, again: Callable[[Recipe], Memory]
) -> list[dict[str, Any]]:
    """Remedies as `{"set", "why", "total", "fits"}` (or `"refused"`); none where all fits.

    Each is tried alone by `again`; when none is enough, those that helped are tried together.
    """
    if memory["fits"]:
        return []
    found, helpful = [], dict[str, Any]()
    for setting, why in _remedies(recipe, memory, gpus):
        entry = _try(recipe, setting, why, again)
        found.append(entry)
        if entry.get("total", math.inf) < memory["total"]:
            helpful |= setting
    if len(helpful) > 1 and not any(entry.get("fits") for entry in found):
        found.append(_try(recipe, helpful, "all that helped, together", again))
    if not any(entry.get("fits") for entry in found):
        found.append(_fewer(recipe, memory, gpus))
    return found


def _try(
    recipe: Recipe, setting: dict[str, Any], why: str, again: Callable[[Recipe], Memory]
) -> dict[str, Any]:
    entry: dict[str, Any] = {"set": {f"train.{k}": v for k, v in setting.items()}, "why": why}
    changed = recipe.model_copy(update={"train": recipe.train.model_copy(update=setting)})
    try:
        memory = again(changed)
    except UserError as error:
        return entry | {"refused": str(error)}
    return entry | {"total": memory["total"], "fits": memory["fits"]}


def _remedies(recipe: Recipe, memory: Memory, gpus: int) -> list[tuple[dict[str, Any], str]]:
    train, found = recipe.train, list[tuple[dict[str, Any], str]]()
    if train.precision != "bf16":
        found.append(({"precision": "bf16"}, "activations take half as much, products run faster"))
    if not train.checkpointing:
        why = "blocks are run again in the backward pass instead of kept: a third more work"
        found.append(({"checkpointing": True}, why))
    times = _times(recipe, memory, gpus)
    if times > 1:
        why = "smaller micro-batches; a loss over the batch goes through the gradient cache"
        found.append(({"accumulate": train.accumulate * times}, why))
    if gpus > 1 and train.parallel != "fsdp":
        found.append(({"parallel": "fsdp"}, "weights and moments are split over devices"))
    return found


def _split(memory: Memory) -> tuple[float, float]:
    """Bytes that grow with the rows, and room for them."""
    growing = sum(memory["parts"].get(name, 0) for name in _GROWING)
    return growing, 0.95 * memory["available"] - (memory["total"] - growing)


def _times(recipe: Recipe, memory: Memory, gpus: int) -> int:
    """Into how many parts a micro-batch has to be cut: a power of two that divides its rows."""
    rows = recipe.train.batch_size // (gpus * recipe.train.accumulate)
    growing, room = _split(memory)
    wanted, times = (growing / room if room > 0 else math.inf), 1
    while times < wanted and rows % (2 * times) == 0:
        times *= 2
    return times


def _fewer(recipe: Recipe, memory: Memory, gpus: int) -> dict[str, Any]:
    """The batch for which there would be room, or that the model alone does not fit."""
    growing, room = _split(memory)
    rows = math.floor(recipe.train.batch_size / gpus * max(0.0, room) / growing)
    if rows < 2:
        return {
            "set": {},
            "why": "the model alone does not fit: take more devices or a smaller one",
        }
    why = "as many samples as there is room for; scale optimizer.lr with it"
    return {"set": {"train.batch_size": rows * gpus}, "why": why}
