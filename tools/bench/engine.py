"""What the training loop costs beside the training: ours against a bare loop and Lightning.

    uv run --group peers python tools/bench/engine.py [--rounds 7]

A tiny network on tensors made beforehand, so that the loop shows: what it costs does not grow with
the network. The same method, views, fused AdamW and batches in every candidate, which take turns:

- bare      views, forward, backward, step, zero_grad: nothing else
- ours      `fit` with its defaults: gradient norm, finite check, schedules, health and loss in
            `metrics.jsonl` every 20 steps, a checkpoint at the end (not timed apart)
- lightning `pl.Trainer` with its defaults, as lightly's examples use it (with --group peers)

Prints CPU milliseconds a step, from one request for a batch to the next, medians over rounds, and
the difference to the bare loop of the same round. Setting up and the last checkpoint lie outside.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import importlib.util
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.encoder import Features
from ssl_core.engine.fit import fit
from ssl_core.engine.optim import build_optimizer
from ssl_core.methods.simclr import SimCLR
from ssl_core.rng import Rng
from ssl_core.views import View

BATCH, DIM = 16, 16


class Given:
    """Views that were made beforehand: the two halves of each sample."""

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        return [View(part, rng) for part in batch.data.chunk(2, dim=1)]

    def plain(self, batch: Batch) -> Tensor:
        first: Tensor = batch.data.chunk(2, dim=1)[0]
        return first


class Encoder(nn.Module):
    embed_dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(DIM, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, DIM)
        )

    def forward(self, data: Tensor) -> Features:
        return Features(self.net(data))


class InMemory:
    """Batches in memory, again and again."""

    def __init__(self) -> None:
        ids = torch.arange(BATCH)
        self.made = [Batch(torch.randn(BATCH, 2 * DIM), ids + i * BATCH, ids) for i in range(8)]

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        self.asked: list[float] = []
        for step in range(start, stop):
            self.asked.append(time.process_time())
            yield self.made[step % len(self.made)]

    def each(self) -> float:
        """Mean milliseconds between requests, after the first few."""
        return 1000 * (self.asked[-1] - self.asked[5]) / (len(self.asked) - 6)


def method() -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(Encoder(), Given(), hidden=32, dim=8)


OPTIMIZER = recipe.Optimizer()
LOADER = InMemory()


def bare(steps: int) -> None:
    model = method().train()
    optimizer = build_optimizer(model, OPTIMIZER)
    for step, batch in enumerate(LOADER.batches(0, steps)):
        with torch.no_grad():
            views = model.views(batch, Rng.at(0, step, batch.ids))
        model(views).total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def ours(steps: int) -> None:
    train = recipe.Train(steps=steps, batch_size=BATCH, save_every=steps)
    with tempfile.TemporaryDirectory() as folder:
        fit(method(), LOADER, train=train, optimizer=OPTIMIZER, out=Path(folder))


def lightning(steps: int) -> None:
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = method()

        def training_step(self, batch: Batch, index: int) -> Tensor:
            with torch.no_grad():
                views = self.model.views(batch, Rng.at(0, index, batch.ids))
            loss = self.model(views).total
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return build_optimizer(self.model, OPTIMIZER)

        def transfer_batch_to_device(self, batch: Batch, *_: object) -> Batch:
            return batch

    class Batches(torch.utils.data.IterableDataset[Batch]):
        def __iter__(self) -> Iterator[Batch]:
            return LOADER.batches(0, steps)

    loader = torch.utils.data.DataLoader(Batches(), batch_size=None)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=steps, enable_model_summary=False, accelerator="cpu", default_root_dir=folder
        )
        trainer.fit(Module(), loader)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    torch.set_num_threads(1)
    candidates: dict[str, Callable[[int], None]] = {"bare": bare, "ours": ours}
    if importlib.util.find_spec("pytorch_lightning"):
        warnings.simplefilter("ignore")
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        candidates["lightning"] = lightning
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(given.rounds):
        for name, run in candidates.items():
            run(given.steps)
            times[name].append(LOADER.each())
    print(f"{'':12}{'ms a step':>12}{'over bare':>12}")
    for name, found in times.items():
        # Rounds are paired: what else the machine did then hit both alike.
        over = statistics.median(a - b for a, b in zip(found, times["bare"], strict=True))
        print(f"{name:12}{statistics.median(found):12.2f}{over:12.2f}")


if __name__ == "__main__":
    main()
