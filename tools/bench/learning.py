"""Ours against other libraries on the same work: accuracy, and wall time to the same accuracy.

    uv run --group peers python tools/bench/learning.py                 # every method, three seeds
    uv run --group peers python tools/bench/learning.py --methods simclr byol --seeds 0 --steps 800
    uv run --group peers python tools/bench/learning.py --data letters --methods moco nnclr
    uv pip install stable-pretraining                                   # a peer in no group
    .venv/bin/python tools/bench/learning.py --peers lightly stable-pretraining
    .venv/bin/python tools/bench/learning.py --methods mae --set train.precision=bf16

In one race every candidate trains the same encoder from the same initial weights on the same images
for the same number of steps, batches and rates, a stretch at a time in turn, so that neighbours on
the machine weigh on none of them. Peers are used as their own examples use them: their transforms
on Pillow images in a DataLoader, their heads and losses, torch.optim (stable-pretraining in
Lightning's trainer); strengths of views, widths of heads and temperatures are those of our recipe.
Ours is the shipped recipe in the engine that `pretrain` runs, logs and checkpoints included. The
recipe's `train.precision` holds for all of them. After every stretch each encoder is judged by k-NN
and a linear probe on held-out images; judging is not counted. Both wall and CPU time are kept; on a
machine with other work `--clock cpu` is the steadier (with `--workers 0`, where all of it is this
process's).

Data: scikit-learn's scanned digits and printed letters (`race_data.py`), on neither of which a
recipe was chosen, and the embedded digits in clutter (`--data digits`), which take longer runs.
Each race is appended to `build/learning/peers.jsonl`; one that stands there is not run again. "The
same accuracy" is the lowest that a candidate's linear probe ends with, means over the seeds.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import copy
import importlib
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch loads it with the first optimiser, for seconds: on nobody's clock
from learning_parts import Peer, Setup
from race_data import SETS, write
from torch import nn

import ssl_vision
from ssl_core.compiling import compiled
from ssl_core.data import Loader, Stream
from ssl_core.engine.fit import fit
from ssl_core.evaluation.knn import knn_accuracy
from ssl_core.evaluation.probe import linear_probe
from ssl_core.evaluation.rivals import Evaluator
from ssl_core.files import atomic_folder
from ssl_core.recipe import Recipe
from ssl_core.runs.parts import build_parts, embedded_data, fitted_reader, split_data
from ssl_core.runs.pretraining import make_evaluator
from ssl_vision import VISION

# Peers' libraries are loaded before their clocks start: so is numba, which ours loads with views.
compiled("ssl_core.ops.loops", torch.device("cpu"))

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "learning" / "peers.jsonl"
# What a recipe sets beyond the plain method that the peers' examples have is set back; where paper
# and released code leave a choice, it is the one that both peers made.
SETTINGS: Mapping[str, list[str]] = {
    "simclr": ["method.joint=false", "method.last_norm=true"],
    "dcl": ["method.joint=false", "method.last_norm=true"],
    "swav": ["method.queue=0"],
    "moco": ["method.symmetric=false"],
    "tico": ["method.symmetric=false"],
}
RECIPES: Mapping[str, str] = {"simclr": "default"}
"""Of the others the recipe is named as the method."""
METHODS = ("simclr", "byol", "barlow_twins", "vicreg", "swav", "dino", "mae")
"""Those that every peer has."""
LIGHTLY = (
    *("dcl", "moco", "nnclr", "simsiam", "tico", "vicregl", "w_mse"),
    *("lejepa", "simmim", "msn", "ibot", "dinov2", "ijepa"),
)
"""Further ones that lightly has."""
PEERS = {
    "lightly": "learning_lightly:LightlyRun",
    "stable-pretraining": "learning_stable:StableRun",
}
DATA = (*SETS, "digits")

Result = dict[str, Any]


class Course:
    """One candidate's way: seconds spent training, and accuracies at each stop."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.points: list[dict[str, float]] = []
        self._began = (0.0, 0.0)

    def go(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]

    def judge(self, evaluator: Evaluator, encoder: nn.Module) -> None:
        """k-NN and a linear probe on the held-out images, now."""
        bank, labels, queries, asked = evaluator.embed(encoder)[0].labelled()
        accuracies = {
            "knn": knn_accuracy(bank, labels, queries, asked),
            "linear": linear_probe(bank, labels, seed=0).accuracy(queries, asked),
        }
        self.points.append({"wall": self.wall, "cpu": self.cpu, **accuracies})

    def kept(self) -> dict[str, Any]:
        """The last point's accuracies, the points, and the seconds of the whole."""
        return {**self.points[-1], "points": self.points, "wall": self.wall, "cpu": self.cpu}


class Race:
    """All candidates of one recipe on one data set; ours leads, the others follow at each stop."""

    def __init__(self, recipe: Recipe, libraries: Sequence[str], given: argparse.Namespace) -> None:
        self.recipe, self.stretch = recipe, -(-recipe.train.steps // given.stops)
        split = split_data(VISION, recipe.data)
        self.reader = fitted_reader(VISION, split.train, recipe.data)
        self.parts = build_parts(VISION, recipe, self.reader, records=len(split.train))
        device = torch.device("cpu")
        self.evaluator = make_evaluator(recipe, split, self.parts, device)
        self.source = split.train
        self.courses = {name: Course() for name in ("ours", *libraries)}
        files = [str(split.train[i].payload) for i in range(len(split.train))]
        spec = self.reader.spec
        self.peers: dict[str, Peer] = {}
        for name in libraries:
            torch.manual_seed(recipe.train.seed)
            encoder = copy.deepcopy(self.parts.encoder)
            setup = Setup(recipe, files, encoder, spec["mean"], spec["std"], given.workers)
            self.peers[name] = peer(name)(setup)
        self.done = 0

    def run(self, scratch: Path) -> Result:
        """Every candidate to the end."""
        recipe, ours = self.recipe, self.courses["ours"]
        for course in self.courses.values():
            course.judge(self.evaluator, self.parts.encoder)
        stream = Stream(len(self.source), recipe.train.batch_size, seed=recipe.train.seed)
        loader = Loader(self.source, self.reader, stream, workers=recipe.data.workers)
        ours.go()
        fit(
            self.parts.method,
            loader,
            train=recipe.train,
            optimizer=recipe.optimizer,
            out=scratch,
            score=self.turn,
            score_every=self.stretch,
        )
        if self.done < recipe.train.steps:  # the last stretch is shorter
            self.turn(self.parts.method.backbone)
        ours.stop()  # from the last stop on: the last checkpoint
        return {name: course.kept() for name, course in self.courses.items()}

    def turn(self, backbone: nn.Module) -> float:
        """Ours is at a stop: judge it, and let the others come as far."""
        self.courses["ours"].stop()
        steps = min(self.stretch, self.recipe.train.steps - self.done)
        self.done += steps
        self.courses["ours"].judge(self.evaluator, backbone)
        # The engine's deterministic kernels are no setting of the peers'.
        torch.use_deterministic_algorithms(False)
        for name, candidate in self.peers.items():
            self.courses[name].go()
            candidate.advance(steps)
            self.courses[name].stop()
            self.courses[name].judge(self.evaluator, candidate.encoder)
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.courses["ours"].go()
        return self.courses["ours"].points[-1]["knn"]


def peer(name: str) -> Callable[[Setup], Peer]:
    """The class that trains as a library does."""
    module, _, attribute = PEERS[name].partition(":")
    found: Callable[[Setup], Peer] = getattr(importlib.import_module(module), attribute)
    return found


def data_folder(name: str) -> Path:
    """A data set, written when it is not there yet."""
    if name == "digits":
        return embedded_data(VISION)
    folder = ROOT / "build" / "learning" / name
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            write(name, temporary)
    return folder


def raced(method: str, data: str, seed: int, given: argparse.Namespace) -> Result:
    """A race from the file, or run now."""
    recipe = ssl_vision.build_recipe(
        RECIPES.get(method, method),
        data=data_folder(data),
        steps=given.steps,
        seed=seed,
        settings=[
            f"data.workers={given.workers}",
            *SETTINGS.get(method, []),
            *given.set,
        ],
    )
    own = recipe.model_dump(mode="json", exclude_defaults=True)
    own["data"].pop("path")
    identity = {"data": data, "recipe": own, "stops": given.stops, "peers": given.peers}
    for line in KEPT.read_text().splitlines() if KEPT.is_file() else []:
        known: Result = json.loads(line)
        if known["identity"] == identity:
            return known
    with tempfile.TemporaryDirectory() as scratch:
        found = Race(recipe, given.peers, given).run(Path(scratch))
    result = {"identity": identity, "method": method, "seed": seed, "courses": found}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with KEPT.open("a") as out:
        out.write(json.dumps(result) + "\n")
    return result


def reached(points: Sequence[Mapping[str, float]], accuracy: float, clock: str) -> float:
    """Seconds at which a course first has an accuracy, between its stops on a straight line."""
    before = points[0]
    for point in points:
        if point["linear"] >= accuracy:
            rise = point["linear"] - before["linear"]
            share = 1.0 if rise <= 0 else (accuracy - before["linear"]) / rise
            return before[clock] + share * (point[clock] - before[clock])
        before = point
    return points[-1][clock]


def mean_course(courses: Sequence[Result]) -> list[dict[str, float]]:
    """The points of a candidate, averaged over its seeds stop by stop."""
    stops = zip(*(course["points"] for course in courses), strict=True)
    return [{key: statistics.mean(p[key] for p in stop) for key in stop[0]} for stop in stops]


def rows(method: str, data: str, results: Sequence[Result], clock: str) -> list[str]:
    """One line of the table for each candidate; "-": the start has that accuracy already.

    The same accuracy is looked for on the mean curves: where a single one first crosses a level
    is mostly chance near its end.
    """
    lines = []
    every = {name: [r["courses"][name] for r in results] for name in results[0]["courses"]}
    means = {name: mean_course(courses) for name, courses in every.items()}
    goal = min(points[-1]["linear"] for points in means.values())
    at = reached(means["ours"], goal, clock)
    for name, own in every.items():
        whole = [c[clock] / ours[clock] for c, ours in zip(own, every["ours"], strict=True)]
        cells = [data, method, name]
        cells += [spread([100 * course[kind] for course in own]) for kind in ("knn", "linear")]
        cells.append(f"{statistics.median(course[clock] for course in own):.0f}")
        slower = f"{reached(means[name], goal, clock) / at:.1f} x" if at else "-"
        cells += ["", ""] if name == "ours" else [f"{statistics.median(whole):.1f} x", slower]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def arguments_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS + LIGHTLY, default=list(METHODS))
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="the same number for every method")
    parser.add_argument("--stops", type=int, default=5, help="how often all are judged")
    parser.add_argument("--workers", type=int, default=0, help="of every candidate's loader")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["lightly"])
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="of the table")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(words)
    alone = sorted(set(given.methods) & set(LIGHTLY))
    if alone and given.peers != ["lightly"]:
        parser.error(f"lightly alone has {', '.join(alone)}; race them with --peers lightly")
    return given


def main() -> None:
    given = arguments_of()
    warnings.simplefilter("ignore")  # of the peers
    print("| data | method | candidate | k-NN | linear | seconds | of ours | to the same linear |")
    print("|" + "---|" * 8)
    for data in given.data:
        for method in given.methods:
            results = [raced(method, data, seed, given) for seed in given.seeds]
            print(*rows(method, data, results, given.clock), sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
