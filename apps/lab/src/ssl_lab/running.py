"""Runs the cells that are missing, one process a device, and keeps every result as it comes."""

from __future__ import annotations

import importlib.util
import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ssl_core.errors import UserError
from ssl_core.files import atomic_write, write_json
from ssl_lab.cell import RESULT, recipe_of
from ssl_lab.experiment import Cell, Experiment, cells

EXPERIMENT = "experiment.json"
CELLS = "cells"


@dataclass(frozen=True)
class Failed:
    """A cell that could not be made, and the last words of its process."""

    cell: Cell
    reason: str


def folder_of(out: Path, cell: Cell) -> Path:
    """Where a cell's run and result lie."""
    return out / CELLS / cell.name


def missing(experiment: Experiment, out: Path) -> list[Cell]:
    """The cells without a result."""
    return [cell for cell in cells(experiment) if not (folder_of(out, cell) / RESULT).is_file()]


def check(experiment: Experiment) -> None:
    """Every domain is installed, every recipe, encoder and setting exists: before any work."""
    for domain in dict.fromkeys(experiment.grid.domains):
        if importlib.util.find_spec(f"ssl_{domain}") is None:
            raise UserError(f"grid.domains: {domain} needs the package ssl-{domain}")
    for cell in cells(experiment):
        if cell.seed != experiment.grid.seeds[0]:  # a seed makes no recipe wrong
            continue
        try:
            recipe_of(cell)
        except UserError as error:
            raise UserError(f"{cell.domain} {cell.recipe}: {error}") from error


def run(
    experiment: Experiment,
    out: Path,
    *,
    devices: Sequence[str] = ("cpu",),
    on_done: Callable[[Cell, bool, int], None] | None = None,
) -> list[Failed]:
    """Makes what is missing, `len(devices)` runs at a time; returns the cells that failed.

    A failed cell leaves a `failure.txt`; the others go on. `on_done(cell, well, left)` is told of
    each. Interrupted, the same call continues: finished cells stay, a half-trained run resumes.
    """
    if not devices:
        raise UserError("devices: name at least one, such as cpu or cuda:0")
    check(experiment)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / EXPERIMENT, experiment.model_dump(mode="json"))
    waiting = missing(experiment, out)
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for device in devices:
        free.put(device)
    failed: list[Failed] = []
    left = len(waiting)

    def one(cell: Cell) -> Failed | None:
        device = free.get()
        try:
            return _process(cell, folder_of(out, cell), device)
        finally:
            free.put(device)

    with ThreadPoolExecutor(len(devices), thread_name_prefix="cell") as pool:
        try:
            for cell, outcome in zip(waiting, pool.map(one, waiting), strict=True):
                left -= 1
                if outcome is not None:
                    failed.append(outcome)
                if on_done is not None:
                    on_done(cell, outcome is None, left)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _process(cell: Cell, folder: Path, device: str) -> Failed | None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "cell.json", asdict(cell))
    command = [sys.executable, "-m", "ssl_lab.cell", str(folder / "cell.json"), str(folder), device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        (folder / "failure.txt").unlink(missing_ok=True)
        return None
    atomic_write(folder / "failure.txt", done.stdout + done.stderr)
    lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
    return Failed(cell, lines[-1])
