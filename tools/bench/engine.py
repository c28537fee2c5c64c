"""What the training loop costs beside the training: ours against a bare loop and other trainers.

    uv run --group peers --with stable-pretraining python tools/bench/engine.py [--rounds 7]
        [--widths 16 256 1024] [--only ours]

A small network on tensors made beforehand, so that the loop shows. The same method, views, fused
AdamW and batches in every candidate, which take turns:

- bare      views, forward, backward, step, zero_grad: nothing else
- ours      `fit` with its defaults: gradient norm, finite check, schedules, health and loss in
            `metrics.jsonl` every 20 steps, a checkpoint at the end (not timed apart)
- lightning `pl.Trainer` with its defaults, as lightly's examples use it (with --group peers)
- stable-pretraining `Manager`, `Module` and `DataModule` with their defaults, where it is installed
            (it brings 40 packages more, so it is in no group of ours)

A width is that of the embeddings: representation health looks at those. Prints CPU milliseconds a
step, from one request for a batch to the next, medians over rounds, and the difference to the bare
loop of the same round. Setting up and the last checkpoint lie outside.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import functools
import importlib.util
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.encoder import Features
from ssl_core.engine.fit import fit
from ssl_core.engine.health import ROWS
from ssl_core.engine.optim import build_optimizer
from ssl_core.methods.simclr import SimCLR
from ssl_core.rng import Rng
from ssl_core.views import View

BATCHES = {16: 16}
"""Samples by width; elsewhere as many as fill the rows that health looks at."""
INPUT = 16


class Given:
    """Views that were made beforehand: the two halves of each sample."""

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        return [View(part, rng) for part in batch.data.chunk(2, dim=1)]

    def plain(self, batch: Batch) -> Tensor:
        first: Tensor = batch.data.chunk(2, dim=1)[0]
        return first


class Encoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed_dim = width
        self.net = nn.Sequential(
            nn.Linear(INPUT, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, width)
        )

    def forward(self, data: Tensor) -> Features:
        return Features(self.net(data))


class InMemory:
    """Batches in memory, again and again."""

    def __init__(self, size: int) -> None:
        ids = torch.arange(size)
        self.made = [Batch(torch.randn(size, 2 * INPUT), ids + i * size, ids) for i in range(8)]

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        self.asked: list[float] = []
        for step in range(start, stop):
            self.asked.append(time.process_time())
            yield self.made[step % len(self.made)]

    def each(self) -> float:
        """Mean milliseconds between requests, after the first few."""
        return 1000 * (self.asked[-1] - self.asked[5]) / (len(self.asked) - 6)


class Case:
    """What every candidate trains: a method of one width, and its batches."""

    def __init__(self, width: int, steps: int) -> None:
        self.width, self.steps = width, steps
        self.batch = BATCHES.get(width, ROWS // 2)
        self.loader = InMemory(self.batch)

    def method(self) -> SimCLR:
        torch.manual_seed(0)
        return SimCLR(Encoder(self.width), Given(), hidden=32, dim=8)

    def loss(self, method: SimCLR, batch: Batch, step: int) -> Tensor:
        with torch.no_grad():
            views = method.views(batch, Rng.at(0, step, batch.ids))
        return method(views).total


OPTIMIZER = recipe.Optimizer()


def bare(case: Case) -> None:
    model = case.method().train()
    optimizer = build_optimizer(model, OPTIMIZER)
    for step, batch in enumerate(case.loader.batches(0, case.steps)):
        case.loss(model, batch, step).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def ours(case: Case) -> None:
    train = recipe.Train(steps=case.steps, batch_size=case.batch, save_every=case.steps)
    with tempfile.TemporaryDirectory() as folder:
        fit(case.method(), case.loader, train=train, optimizer=OPTIMIZER, out=Path(folder))


def lightning(case: Case) -> None:
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = case.method()

        def training_step(self, batch: Batch, index: int) -> Tensor:
            loss = case.loss(self.model, batch, index)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return build_optimizer(self.model, OPTIMIZER)

        def transfer_batch_to_device(self, batch: Batch, *_: object) -> Batch:
            return batch

    class Batches(torch.utils.data.IterableDataset[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            return case.loader.batches(0, case.steps)

    loader = torch.utils.data.DataLoader(Batches(), batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=case.steps,
            enable_model_summary=False,
            accelerator="cpu",
            default_root_dir=folder,
        )
        trainer.fit(Module(), loader)


def stable_pretraining(case: Case) -> None:
    import lightning
    import stable_pretraining as spt

    def forward(self: Any, batch: dict[str, Any], stage: str) -> dict[str, Any]:
        given = Batch(batch["data"], batch["ids"], batch["ids"])
        batch["loss"] = case.loss(self.model, given, batch["batch_idx"])
        return batch

    class Batches(torch.utils.data.IterableDataset[dict[str, Tensor]]):
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            for batch in case.loader.batches(0, case.steps):
                yield {"data": batch.data, "ids": batch.ids}

    adamw = functools.partial(
        torch.optim.AdamW, lr=OPTIMIZER.lr, weight_decay=OPTIMIZER.weight_decay, fused=True
    )
    with tempfile.TemporaryDirectory() as folder:
        spt.set(cache_dir=folder)
        trainer = lightning.Trainer(max_steps=case.steps, accelerator="cpu")
        module = spt.Module(
            model=case.method(),
            forward=forward,
            optim={"optimizer": adamw, "scheduler": "CosineAnnealingLR", "interval": "step"},
        )
        loader = torch.utils.data.DataLoader(Batches(), batch_size=None)
        spt.Manager(trainer, module, spt.data.DataModule(train=loader), seed=0)()


PEERS = {
    "lightning": ("pytorch_lightning", lightning),
    "stable-pretraining": ("stable_pretraining", stable_pretraining),
}


def measure(
    candidates: dict[str, Callable[[Case], None]], case: Case, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds a step of each candidate, round by round."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            run(case)
            times[name].append(case.loader.each())
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 256, 1024])
    parser.add_argument("--only", choices=["ours", *PEERS], help="beside the bare loop")
    given = parser.parse_args()
    torch.set_num_threads(1)
    candidates: dict[str, Callable[[Case], None]] = {"bare": bare, "ours": ours}
    for name, (package, run) in PEERS.items():
        if importlib.util.find_spec(package):
            candidates[name] = run
    if given.only:
        candidates = {name: candidates[name] for name in ("bare", given.only)}
    warnings.simplefilter("ignore")  # of the peers
    for package in ("pytorch_lightning", "lightning"):
        logging.getLogger(package).setLevel(logging.ERROR)
    shown, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115  peers print
    head = f"{'width x batch':16}{'':20}{'ms a step':>12}{'over bare':>12}{'x bare':>8}"
    print(head, file=shown, flush=True)
    for width in given.widths:
        case = Case(width, given.steps)
        times = measure(candidates, case, given.rounds)
        for name, found in times.items():
            # Rounds are paired: what else the machine did then hit both alike.
            pairs = list(zip(found, times["bare"], strict=True))
            over = statistics.median(a - b for a, b in pairs)
            ratio = statistics.median(a / b for a, b in pairs)
            title = f"{width} x {case.batch}"
            print(
                f"{title:16}{name:20}{statistics.median(found):12.2f}{over:12.2f}{ratio:8.2f}",
                file=shown,
                flush=True,
            )


if __name__ == "__main__":
    main()
