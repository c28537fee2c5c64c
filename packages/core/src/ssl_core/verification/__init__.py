"""Are objectives exact over replicas on this machine? Real processes, real exchanges, float64."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_core.errors import SSLError, UserError, unknown

TOLERANCE = 1e-10
"""Largest difference from one process, relative to the largest entry."""


@dataclass(frozen=True)
class Finding:
    """One case in one world: relative errors of its value and of its gradient."""

    name: str
    objective: str
    world: int
    value: float
    gradient: float

    @property
    def exact(self) -> bool:
        return max(self.value, self.gradient) <= TOLERANCE


def objective_names() -> list[str]:
    """The objectives that can be verified."""
    from ssl_core.verification.cases import CASES

    return list(dict.fromkeys(case.objective for case in CASES))


def verify(objectives: Iterable[str] = (), *, worlds: Sequence[int] = (2, 4)) -> list[Finding]:
    """Compares one process with `worlds` replicas (gloo, float64) for every form of `objectives`.

    All objectives when none is named. Raises `UserError` for a name that does not exist or a world
    that does not divide the batch of 8, and `SSLError` if a replica fails.
    """
    from safetensors.torch import load_file

    from ssl_core.verification.cases import BATCH, CASES, measure

    wanted, known = list(objectives), objective_names()
    for name in wanted:
        if name not in known:
            raise unknown("objective", name, known)
    for world in worlds:
        if world < 2 or BATCH % world:
            raise UserError(f"ranks: {world} replicas cannot share {BATCH} samples; use 2, 4 or 8")
    cases = [case for case in CASES if not wanted or case.objective in wanted]
    findings = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _run(folder, worlds, [case.name for case in cases])
        for world in worlds:
            got = load_file(folder / f"world-{world}.safetensors")
            for case in cases:
                errors = []
                wants = measure(case, slice(None))
                for part, want in zip(("value", "grad"), wants, strict=True):
                    difference = (got[f"{case.name}/{part}"] - want).abs().max().item()
                    largest = want.abs().max().item()
                    errors.append(difference / largest if largest else difference)
                findings.append(Finding(case.name, case.objective, world, *errors))
    return findings


def _run(folder: Path, worlds: Sequence[int], names: Sequence[str]) -> None:
    """Starts as many replicas as the largest world has and waits for them."""
    (folder / "names.txt").write_text("\n".join(names))
    command = [sys.executable, "-m", "ssl_core.verification.ranks"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    running = [
        subprocess.Popen(
            [*command, str(rank), str(folder), *map(str, worlds)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(max(worlds))
    ]
    try:
        for rank, process in enumerate(running):
            _, errors = process.communicate(timeout=300)
            if process.returncode:
                raise SSLError(f"verify: replica {rank} failed:\n{errors[-2000:]}")
    finally:
        for process in running:
            process.kill()
            process.wait()
