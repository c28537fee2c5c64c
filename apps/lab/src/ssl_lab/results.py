"""From the cells' results to one table, and to means, spreads and ranks."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_core.files import atomic_path, read_json
from ssl_lab.cell import RESULT, read_cell
from ssl_lab.experiment import Experiment, cells
from ssl_lab.running import CELLS, EXPERIMENT, folder_of

Row = dict[str, Any]
Groups = dict[str, list[Row]]
"""Rows that differ in nothing but the seed, by a name that tells the groups apart."""

RIVALS = ("raw", "untrained", "trained")
KEYS = ("domain", "recipe", "encoder", "variant")


def experiment_of(out: Path) -> Experiment:
    """The experiment an output folder belongs to."""
    return Experiment.model_validate(read_json(out / EXPERIMENT))


def collect(out: Path) -> list[Row]:
    """One row a finished cell of the folder's experiment, in the grid's order."""
    rows = []
    for cell in cells(experiment_of(out)):
        folder = folder_of(out, cell)
        if (folder / RESULT).is_file():
            names = {name: getattr(cell, name) for name in (*KEYS, "seed")}
            rows.append({**names, **read_json(folder / RESULT)})
    return rows


def failures(out: Path) -> list[tuple[str, str]]:
    """(cell, last line) of what failed and has not been made since."""
    found = []
    for place in sorted((out / CELLS).glob("*/failure.txt")):
        cell = read_cell(read_json(place.with_name("cell.json")))
        lines = place.read_text(encoding="utf-8").strip().splitlines() or ["no output"]
        found.append((cell.name, lines[-1]))
    return found


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """The rows as Parquet; what a row has several of becomes columns of their own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = [flattened(row) for row in rows]
    columns = {name: None for row in flat for name in row}
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist([{**columns, **row} for row in flat]), temporary)


def flattened(row: Row) -> Row:
    """A row of plain values: `probe_0.1_trained`, `layer_head output_knn`, `task_2_after_1`..."""
    several = ("shares", "layers", "tasks", "rates")
    out = {name: value for name, value in row.items() if name not in several}
    for entry in row["shares"]:
        out |= {f"probe_{entry['share']:g}_{rival}": entry[rival] for rival in RIVALS}
    for entry in row.get("layers", []):
        for name in ("knn", "probe", "effective_rank"):
            out[f"layer_{entry['layer']}_{name}"] = entry[name]
    tasks = row.get("tasks")
    if tasks:
        out |= {name: tasks[name] for name in ("average", "forgetting")}
        for i, accuracies in enumerate(tasks["after"], 1):
            out |= {f"task_{j}_after_{i}": value for j, value in enumerate(accuracies, 1)}
    return out


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation of a number over seeds."""

    mean: float
    std: float
    count: int


def stat(values: Iterable[float | None]) -> Stat | None:
    """Of the values there are; None without any."""
    known = [float(value) for value in values if value is not None]
    if not known:
        return None
    spread = statistics.stdev(known) if len(known) > 1 else 0.0
    return Stat(statistics.mean(known), spread, len(known))


def percent(found: Stat | None) -> str:
    """Mean ± deviation in percent."""
    return plain(None if found is None else Stat(100 * found.mean, 100 * found.std, found.count))


def plain(found: Stat | None) -> str:
    """Mean ± deviation, not to be broken over lines."""
    if found is None:
        return "–"
    spread = f"\u00a0±\u00a0{found.std:.1f}" if found.count > 1 else ""
    return f"{found.mean:.1f}{spread}"


def interval(found: Stat) -> tuple[float, float, float]:
    """Mean, and one deviation below and above it, in percent."""
    mean, std = 100 * found.mean, 100 * found.std
    return mean, mean - std, mean + std


def names_of(keys: Sequence[tuple[str | None, ...]]) -> list[str]:
    """The words in which the keys differ, all words of a single one."""
    if len(keys) == 1:
        return [" · ".join(word for word in keys[0] if word)]
    places = [i for i in range(len(keys[0])) if len({key[i] for key in keys}) > 1] if keys else []
    return [" · ".join(key[i] or "as it is" for i in places) for key in keys]


def grouped(rows: Sequence[Row]) -> dict[tuple[str | None, ...], list[Row]]:
    """Rows that differ in nothing but the seed, by (domain, recipe, encoder, variant)."""
    out: dict[tuple[str | None, ...], list[Row]] = {}
    for row in rows:
        out.setdefault(tuple(row[name] for name in KEYS), []).append(row)
    return out


def gain(row: Mapping[str, Any]) -> float | None:
    """By how much the trained encoder beats the better of its rivals."""
    values = [row[f"score_{name}"] for name in RIVALS]
    if any(value is None for value in values):
        return None
    return float(values[2] - max(values[0], values[1]))


def ranks(
    groups: Mapping[tuple[str | None, ...], Sequence[Row]],
    number: Callable[[Row], float | None],
) -> dict[tuple[str | None, ...], float]:
    """Mean rank (1 is best) of each recipe, encoder and variant over the domains it ran in.

    Within a domain the means over seeds are compared; equal ones share their ranks.
    """
    by_domain: dict[str | None, dict[tuple[str | None, ...], float]] = {}
    for key, rows in groups.items():
        found = stat(map(number, rows))
        if found is not None:
            by_domain.setdefault(key[0], {})[key[1:]] = found.mean
    collected: dict[tuple[str | None, ...], list[float]] = {}
    for scores in by_domain.values():
        for name, value in scores.items():
            better = sum(other > value for other in scores.values())
            equal = sum(other == value for other in scores.values())
            collected.setdefault(name, []).append(better + (equal + 1) / 2)
    return {name: statistics.mean(values) for name, values in collected.items()}
