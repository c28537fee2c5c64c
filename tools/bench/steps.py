"""A training step of each domain's default on a CPU, by what malloc keeps between steps.

    uv run python tools/bench/steps.py [--domains vision audio ...] [--rounds 2] [--steps 60]
    uv run python tools/bench/steps.py --domains vision --recipe mae --set train.precision=bf16

Prints CPU milliseconds a step, page faults a step and the process's peak, each run in a process of
its own, three ways in turn: as glibc does by itself, as `ssl_core.environment` sets it (freed
blocks below 8 MiB are kept), and with blocks below 32 MiB kept. A step frees its activations and
the next one wants as much again; by itself glibc hands most of it back to the system, which clears
and maps the same pages anew.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import importlib
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from resident import answer, apart

from ssl_core.data import Loader, Stream
from ssl_core.engine.fit import fit
from ssl_core.runs.parts import build_parts, embedded_data, fitted_reader, split_data

DOMAINS = ("vision", "audio", "video", "medical", "graph", "text")
EVERY = 10
"""Steps between two looks at the clock."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
MORE = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
# A variable that is set, even to nothing, leaves malloc to the user.
WAYS = {"glibc": {"GLIBC_TUNABLES": ""}, "ours": {}, "32 MiB": MORE}

Usage = dict[str, float]


def usage() -> Usage:
    """Seconds, page faults and the peak of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu": time.process_time(), "faults": used.ru_minflt, "peak": used.ru_maxrss / 1024}


def measured(name: str, recipe_name: str, steps: int, settings: list[str]) -> Usage:
    """Of one training: milliseconds and faults a step after the first ten, and the peak in MiB."""
    package: Any = importlib.import_module(f"ssl_{name}")
    domain = getattr(package, name.upper())
    recipe = package.build_recipe(
        recipe_name,
        data=embedded_data(domain),
        steps=steps + EVERY,
        seed=0,
        settings=["data.workers=0", *settings],
    )
    split = split_data(domain, recipe.data)
    reader = fitted_reader(domain, split.train, recipe.data)
    parts = build_parts(domain, recipe, reader, records=len(split.train))
    stream = Stream(len(split.train), recipe.train.batch_size, seed=0)
    looks: list[Usage] = []

    def look(backbone: Any) -> float:
        looks.append(usage())
        return 0.0

    with tempfile.TemporaryDirectory() as scratch:
        fit(
            parts.method,
            Loader(split.train, reader, stream, workers=0),
            train=recipe.train,
            optimizer=recipe.optimizer,
            out=Path(scratch),
            score=look,
            score_every=EVERY,
        )
    first, last = looks[0], looks[-1]
    count = EVERY * (len(looks) - 1)
    return {
        "ms": 1e3 * (last["cpu"] - first["cpu"]) / count,
        "faults": (last["faults"] - first["faults"]) / count,
        "peak": last["peak"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--apart", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.apart:
        answer(measured(*given.apart, given.steps, given.set))
        return
    figures = {"ms": "ms a step", "faults": "faults a step", "peak": "peak, MiB"}
    heads = [f"{name}: {way}" for name in figures.values() for way in WAYS]
    print("| " + " | ".join(["domain", *heads]) + " |")
    print("|" + "---|" * (1 + len(heads)))
    for domain in given.domains:
        words = ["--apart", domain, given.recipe, "--steps", str(given.steps)]
        words += ["--set", *given.set] if given.set else []
        turns = [
            [apart(__file__, words, {**ONE_THREAD, **way}) for way in WAYS.values()]
            for _ in range(given.rounds)
        ]
        cells = [
            f"{statistics.median(run[figure] for run in way):.{int(figure == 'ms')}f}"
            for figure in figures
            for way in zip(*turns, strict=True)
        ]
        print("| " + " | ".join([domain, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
