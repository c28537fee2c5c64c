"""Breaks trainings on purpose, lets them continue, and compares bits with an unbroken run.

    uv run python tools/faults.py              # about 120 trials
    uv run python tools/faults.py --short      # one of each kind that needs no launcher
    uv run python tools/faults.py --only "rank crash"       # one kind: killed twice, ends by itself
    uv run python tools/faults.py --record build/faults.jsonl --minutes 3   # in goes: repeat it

With `--record` every trial is written down when it ends, and the same command goes on with those
that are missing; after `--minutes` it stops. The table then counts all that is written down.

"survived" means that the same command, given again, finished the run; "identical" that SHA-256 of
the final parameters, teacher, batch-norm statistics and optimiser moments, and of the weights
people use, are those of the run nobody touched. Where the number of ranks changed on the way, sums
were taken in another order: there "identical" means equal to 1e-9 in float64.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from fault_job import STEPS, write_data
from fault_kinds import FAULTS, Fault, Trial, attempt, other_world, small_disk
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.tensors import read_tensors

Outcome = tuple[bool, bool, str]
"""Survived, identical, what went wrong."""


def outcome(out: Path) -> str:
    """SHA-256 of the final state and weights."""
    folder = Checkpoints(out / "checkpoints").path(STEPS)
    digest = hashlib.sha256()
    for name in ("state.safetensors", "model.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def close(a: Path, b: Path) -> bool:
    files = [Checkpoints(x / "checkpoints").path(STEPS) / "state.safetensors" for x in (a, b)]
    one, two = (read_tensors(file) for file in files)
    return set(one) == set(two) and all(
        torch.allclose(one[k].double(), two[k].double(), rtol=1e-9, atol=1e-11) for k in one
    )


@functools.cache
def reference(work: Path, data: Path, options: tuple[tuple[str, object], ...]) -> Path:
    """The run nobody touched, made once for each setting."""
    out = Path(tempfile.mkdtemp(prefix="whole-", dir=work)) / "run"
    code = attempt(Trial(out, data, random.Random(0)), **dict(options))
    assert code == 0, f"the unbroken run ended with {code}"
    return out


def try_once(fault: Fault, number: int, work: Path, data: Path) -> Outcome:
    """One trial: breaks a run, lets the same command finish it, compares."""
    whole = reference(work, data, fault.options)
    trial = Trial(work / f"{fault.name}-{number}", data, random.Random(f"{fault.name} {number}"))
    try:
        fault.break_it(trial)
        code = attempt(trial, **fault.setting)
        if code:
            return False, False, f"continuing it ended with {code}"
        equal = close if fault.break_it is other_world else lambda a, b: outcome(a) == outcome(b)
        return True, equal(trial.out, whole), ""
    except (AssertionError, OSError, subprocess.SubprocessError, IndexError) as error:
        return False, False, f"{type(error).__name__}: {error}"
    finally:
        if os.path.ismount(trial.out):
            subprocess.run(["umount", str(trial.out)], check=True)
        shutil.rmtree(trial.out, ignore_errors=True)


def can_mount(work: Path) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    (work / "probe").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(work / "probe")]
    if subprocess.run(command, capture_output=True).returncode:
        return False
    subprocess.run(["umount", str(work / "probe")], check=True)
    return True


class Record:
    """Outcomes by (fault, number): in memory, and one JSON line each in a file, where given."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.known = path, dict[tuple[str, int], Outcome]()
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.known[entry["fault"], entry["trial"]] = tuple(entry["outcome"])

    def add(self, fault: str, number: int, outcome: Outcome) -> None:
        self.known[fault, number] = outcome
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                entry = {"fault": fault, "trial": number, "outcome": outcome}
                file.write(json.dumps(entry) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--trials", type=int, help="this many of each instead")
    parser.add_argument("--record", type=Path, help="file of outcomes to add to and count")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no trial after")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    record, end = Record(given.record), time.monotonic() + 60 * given.minutes
    rows, missing = [], 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        work = Path(folder)
        write_data(work / "data")
        mountable = can_mount(work)
        for fault in FAULTS:
            if given.only not in fault.name or (given.short and not fault.short):
                continue
            if fault.break_it is small_disk and not mountable:
                print(f"{fault.name}: left out, mounting needs root", file=sys.stderr)
                continue
            count = given.trials or (1 if given.short else fault.trials)
            for number in range(count):
                if (fault.name, number) not in record.known and time.monotonic() < end:
                    record.add(fault.name, number, try_once(fault, number, work, work / "data"))
            keys = [(fault.name, number) for number in range(count)]
            found = [record.known[key] for key in keys if key in record.known]
            missing += count - len(found)
            survived, identical = (sum(f[i] for f in found) for i in (0, 1))
            rows.append((fault.name, len(found), survived, identical))
            for why in sorted({f[2] for f in found if f[2]}):
                print(f"{fault.name}: {why}", file=sys.stderr)
            if not given.json:
                print(
                    "{:38} {:4} trials {:4} survived {:4} identical".format(*rows[-1]), flush=True
                )
    totals = [sum(row[i] for row in rows) for i in (1, 2, 3)]
    if missing:
        print(
            f"{missing} trials are still to be made; give the same command again", file=sys.stderr
        )
    if given.json:
        print(json.dumps({"rows": rows, "totals": totals}))
    else:
        print("{:38} {:4} trials {:4} survived {:4} identical".format("all", *totals))
    return 0 if len(set(totals)) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
