"""What readers share: checked options, facts of a few records, a file in the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ssl_core.batch import Record, Source
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import read_json
from ssl_core.registry import check_options
from ssl_core.rng import shuffled

T = TypeVar("T")

_FILE = "reader.json"


class Options:
    """Base of a frozen dataclass that holds what `data.options` of a recipe may set."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Checked options; unknown names raise `UserError`."""
        check_options("data.options", cls, options, positional=0)
        return cls(**options)


def whole_number(name: str, value: object, low: int) -> None:
    """Raises `UserError` unless an option is an integer of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise UserError(f"data.options.{name}: {value!r} is not an integer of at least {low}")


def number(name: str, value: object, low: float, high: float = float("inf")) -> None:
    """Raises `UserError` unless an option is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UserError(f"data.options.{name}: {value!r} is not a number from {low:g} to {high:g}")


def one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raises `UserError` unless an option is one of `allowed`."""
    if value not in allowed:
        raise UserError(f"data.options.{name}: {value!r}; choose one of {', '.join(allowed)}")


def look_at_some(source: Source, count: int, look: Callable[[Record], T], *, what: str) -> list[T]:
    """`look(record)` for up to `count` records, chosen by a keyed permutation, in their order.

    Unreadable records are passed over (the loader reports them). Raises `UserError` when none can
    be read; `what` is what a record should have been, such as "image".
    """
    rows = np.arange(0)
    if len(source):
        rows = np.sort(shuffled(np.arange(min(len(source), count)), len(source), f"{what} facts"))
    found: list[T] = []
    reason = "the source is empty"
    for row in rows:
        try:
            found.append(look(source[int(row)]))
        except (CorruptSample, OSError) as error:
            reason = str(error)
    if not found:
        raise UserError(f"data: none of {len(rows)} records is a readable {what} ({reason})")
    return found


def save_facts(folder: Path, spec: Mapping[str, Any], options: Any) -> None:
    """Writes a reader's facts and its options (a dataclass) as `reader.json`."""
    content = {"spec": dict(spec), "options": asdict(options)}
    Path(folder, _FILE).write_text(json.dumps(content, indent=2) + "\n")


def load_facts(folder: Path, *, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The (spec, options) that `save_facts` wrote; `UserError` in a folder without them."""
    path = Path(folder, _FILE)
    if not path.is_file():
        raise UserError(f"{path} does not exist; {folder} is not the folder of a run on {what}s")
    content = read_json(path)
    return content["spec"], content["options"]
