"""How the gradients of one step come about: from micro-batches that add up.

A loss that is a mean over samples may be taken micro-batch by micro-batch. One that compares the
samples of a batch may not; `gradient_cache` is for those.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.distributed import rank, world_size
from ssl_core.engine.precision import autocast
from ssl_core.methods.base import Loss, Method
from ssl_core.rng import Rng, key_of
from ssl_core.views import View


class Gradients(Protocol):
    """Leaves the whole batch's gradient in every parameter, averaged over ranks."""

    def __call__(self, batches: Iterator[Batch], step: int) -> tuple[Loss, float]:
        """Takes the step's micro-batches; returns its loss and the seconds waited for data."""


class Accumulation:
    """Forward and backward of one micro-batch after another; the last exchanges gradients."""

    def __init__(self, model: nn.Module, method: Method, train: recipe.Train) -> None:
        self.model = model
        self.method = method
        self.train = train

    def __call__(self, batches: Iterator[Batch], step: int) -> tuple[Loss, float]:
        count, waited, losses = self.train.accumulate, 0.0, []
        for micro in range(count):
            batch, seconds = timed_next(batches)
            waited += seconds
            with synchronised(self.model, last=micro == count - 1):
                views = make_views(self.method, batch, self.train.seed, step, micro)
                with autocast(batch.ids.device, self.train.precision):
                    loss: Loss = self.model(views)
                (loss.total / count).backward()
            losses.append(loss)
        return _mean(losses), waited


def make_views(method: Method, batch: Batch, seed: int, step: int, micro: int) -> list[View]:
    """The views of one micro-batch; whatever follows draws the same numbers every time."""
    # Layers of other libraries (stochastic depth, attention dropout) draw from torch's own
    # generator; starting it from the step makes a resumed run repeat them.
    key = key_of("stock layers", seed, step, micro, rank()) % (1 << 63)
    # `torch.manual_seed` would also queue a seed, with a stack trace, for every accelerator that
    # is not in use: a third of a millisecond a step, and memory that grows.
    torch.default_generator.manual_seed(key)
    if batch.ids.is_cuda:
        torch.cuda.default_generators[batch.ids.device.index].manual_seed(key)
    with torch.no_grad():
        return method.views(batch, Rng.at(seed, step, batch.ids))


def timed_next(batches: Iterator[Batch]) -> tuple[Batch, float]:
    """The next batch and the seconds it was waited for."""
    asked = time.perf_counter()
    batch = next(batches)
    return batch, time.perf_counter() - asked


@contextlib.contextmanager
def synchronised(model: nn.Module, *, last: bool) -> Iterator[None]:
    """Only the last micro-batch of a step exchanges gradients."""
    if last or world_size() == 1:
        yield
    elif hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(False)  # type: ignore[operator]
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)  # type: ignore[operator]
    else:
        with model.no_sync():  # type: ignore[operator]
            yield


def _mean(losses: list[Loss]) -> Loss:
    """The step's loss over its micro-batches."""
    if len(losses) == 1:
        return losses[0]

    def mean(of: list[Tensor]) -> Tensor:
        return torch.stack([x.detach() for x in of]).mean(0)

    return Loss(
        mean([loss.total for loss in losses]),
        {name: mean([loss.parts[name] for loss in losses]) for name in losses[0].parts},
        {name: mean([loss.metrics[name] for loss in losses]) for name in losses[0].metrics},
    )
