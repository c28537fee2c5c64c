"""Do the embedded defaults learn? Every domain's default recipe over several seeds.

    uv run python tools/defaults.py                       # three seeds of each domain
    uv run python tools/defaults.py --domains vision --seeds 5

Prints a Markdown table: held-out k-NN accuracy (mean and spread over seeds) of raw input, untrained
and trained encoder. The recipe, the step count and k are fixed beforehand; nothing is selected on
the held-out labels.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

import ssl_core.environment  # noqa: F401  thread settings stand before torch is imported
from ssl_core import api
from ssl_core.files import read_json


def measure(domain: str, seed: int, folder: Path) -> dict[str, float]:
    """One run; accuracies in percent and the seconds the whole of it took."""
    package = importlib.import_module(f"ssl_{domain}")
    began = time.perf_counter()
    run = api.pretrain(getattr(package, domain.upper()), seed=seed, out=folder, progress=False)
    summary = read_json(run.path / "summary.json")
    scores = {name: 100 * value for name, value in summary["knn"].items()}
    return {**scores, "seconds": time.perf_counter() - began}


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domains", nargs="+", default=["vision", "graph", "text"])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    print("| domain | raw | untrained | trained | trained - best rival | seconds a run |")
    print("|---|---|---|---|---|---|", flush=True)
    worst = float("inf")
    for domain in arguments.domains:
        with tempfile.TemporaryDirectory() as folder:
            runs = [measure(domain, s, Path(folder, str(s))) for s in range(arguments.seeds)]
        columns = {name: [run[name] for run in runs] for name in runs[0]}
        gains = [run["trained"] - max(run["raw"], run["untrained"]) for run in runs]
        worst = min(worst, statistics.mean(gains))
        cells = [spread(columns[name]) for name in ("raw", "untrained", "trained")]
        seconds = statistics.median(columns["seconds"])
        row = [domain, *cells, spread(gains), f"{seconds:.0f}"]
        print("| " + " | ".join(row) + " |", flush=True)
    return 0 if worst > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
