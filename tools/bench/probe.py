"""The linear probe against scikit-learn's, over the same penalties, on features as they occur.

    uv run python tools/bench/probe.py [--rounds 3] [--max-iter 500]

Features of the embedded digits: of an untrained residual network (96 numbers) and raw pixels (3,072
numbers). Both are standardised and fitted on the same four fifths at every penalty of the grid, in
turn; printed are CPU seconds (median), how many fits stopped before they converged, and the best
accuracy on the last fifth. A rotation to principal axes is in our time.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import ssl_vision
from ssl_core.evaluation.logistic import logistic, principal
from ssl_core.evaluation.probe import GRID, validation_rows
from ssl_core.runs.assessing import rivals_of
from ssl_vision import VISION

Fits = tuple[int, float]
"""How many did not converge, and the best accuracy."""


def features(scratch: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Standardised rows and labels of the untrained encoder and of raw pixels."""
    run = ssl_vision.pretrain(steps=1, out=scratch / "run", progress=False)
    rivals = rivals_of(run, VISION).rivals
    found = {}
    for name in ("untrained", "raw"):
        bank, labels, _, _ = rivals[name].labelled()
        x = bank.double().numpy()
        spread = x.std(axis=0)
        found[name] = (x - x.mean(axis=0)) / np.where(spread == 0, 1, spread), labels.numpy()
    return found


def ours(x: np.ndarray, y: np.ndarray, held: np.ndarray, max_iter: int) -> Fits:
    """Along principal axes."""
    found = principal(x)
    models = [
        logistic(found.rows[~held], found.variance, y[~held], c=c, max_iter=max_iter) for c in GRID
    ]
    right = [float(np.mean(model.predict(found.rows[held]) == y[held])) for model in models]
    return sum(not model.converged for model in models), max(right)


def theirs(x: np.ndarray, y: np.ndarray, held: np.ndarray, max_iter: int) -> Fits:
    """scikit-learn's L-BFGS."""
    models = [LogisticRegression(C=c, max_iter=max_iter).fit(x[~held], y[~held]) for c in GRID]
    right = [float(model.score(x[held], y[held])) for model in models]
    return sum(int(model.n_iter_[0]) >= max_iter for model in models), max(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-iter", type=int, default=500)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    candidates: dict[str, Callable[..., Fits]] = {"ours": ours, "scikit-learn": theirs}
    with tempfile.TemporaryDirectory() as scratch:
        data = features(Path(scratch))
    print("| features | candidate | CPU seconds | not converged | best accuracy | of ours |")
    print("|" + "---|" * 6)
    for name, (x, y) in data.items():
        held = validation_rows(y, seed=0)
        seconds: dict[str, list[float]] = {each: [] for each in candidates}
        fits: dict[str, Fits] = {}
        for _ in range(options.rounds):
            for each, fit in candidates.items():
                began = time.process_time()
                fits[each] = fit(x, y, held, options.max_iter)
                seconds[each].append(time.process_time() - began)
        for each, (missed, best) in fits.items():
            taken = statistics.median(seconds[each])
            ratio = taken / statistics.median(seconds["ours"])
            cells = [name, each, f"{taken:.1f}", str(missed), f"{100 * best:.1f}", f"{ratio:.1f} x"]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
