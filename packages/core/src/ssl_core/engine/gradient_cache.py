"""The gradient cache: a batch-coupled loss over more samples than fit in memory, exactly.

    1. every micro-batch:  reps = encode(views), without a graph
    2. once:               loss(all reps).backward(), which gives d loss / d reps
    3. every micro-batch:  encode(views) again, with a graph; reps.backward(d loss / d reps)

Memory is that of one micro-batch plus all representations; the price is a second forward. It is
the gradient of the whole batch because all randomness is keyed: the second forward repeats the
first, dropout and views included. Gao et al., RepL4NLP 2021 (GradCache), who save and restore
generator states instead. Nothing below knows the method.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.distributed import world_size
from ssl_core.engine.gradients import make_views, synchronised, timed_next
from ssl_core.engine.precision import autocast
from ssl_core.engine.trees import tensors, with_tensors
from ssl_core.errors import UserError
from ssl_core.methods.base import Loss, Method


class GradientCache:
    """The gradients of one step from `train.accumulate` micro-batches of a batch-coupled loss.

    Raises `UserError` for a method with batch norm: its statistics would be those of a
    micro-batch, which is another function than the one asked for.
    """

    def __init__(self, model: nn.Module, method: Method, train: recipe.Train) -> None:
        refuse_batch_statistics(method, f"train.accumulate={train.accumulate}")
        self.model = model
        self.method = method
        self.train = train
        self._split = isinstance(method, FSDPModule)
        self._parameters = [p for p in method.parameters() if p.requires_grad]

    def __call__(self, batches: Iterator[Batch], step: int) -> tuple[Loss, float]:
        held, cached, waited = [], [], 0.0
        with torch.no_grad():
            for micro in range(self.train.accumulate):
                batch, seconds = timed_next(batches)
                waited += seconds
                reps = self._encode(batch, step, micro)
                _require_rows(reps, len(batch), self.method)
                held.append(batch)
                cached.append(reps)

        whole = [_leaf(torch.cat(parts)) for parts in zip(*map(tensors, cached), strict=True)]
        cached_reps = with_tensors(cached[0], iter(whole))
        with synchronised(self.model, last=False) if self._split else contextlib.nullcontext():
            with autocast(held[0].ids.device, self.train.precision):
                loss: Loss = self.method.loss(cached_reps)
            loss.total.backward()

        pieces = [
            [None] * len(held) if x.grad is None else x.grad.split([len(b) for b in held])
            for x in whole
        ]
        for micro, batch in enumerate(held):
            last = micro == len(held) - 1 or not self._split
            with synchronised(self.model, last=last):
                outputs = tensors(self._encode(batch, step, micro))
                pairs = [
                    (output, grads[micro])
                    for output, grads in zip(outputs, pieces, strict=True)
                    if output.requires_grad and grads[micro] is not None
                ]
                torch.autograd.backward([o for o, _ in pairs], [g for _, g in pairs])
        if not self._split:
            average_gradients(self._parameters)
        return loss, waited

    def _encode(self, batch: Batch, step: int, micro: int) -> Any:
        views = make_views(self.method, batch, self.train.seed, step, micro)
        with autocast(batch.ids.device, self.train.precision):
            return self.method.encode(views)


def refuse_batch_statistics(method: nn.Module, asked: str) -> None:
    """Raises `UserError` when a module of `method` normalises with statistics of its batch."""
    for name, module in method.named_modules():
        if isinstance(module, _BatchNorm):
            raise UserError(
                f"{asked}: {type(method).__name__} has batch norm ({name}), whose statistics "
                "would be those of a part of the batch. Use an encoder with layer or group norm "
                "and a head without batch norm (where the method offers it, method.norm=layer)"
            )


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """The mean over ranks of every gradient, by one packed all-reduce for each dtype.

    A parameter that only some ranks used counts as zero elsewhere.
    """
    if world_size() == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        by_dtype.setdefault(p.grad.dtype, []).append(p.grad)
    for grads in by_dtype.values():
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        flat /= world_size()
        parts = flat.split([grad.numel() for grad in grads])
        torch._foreach_copy_(grads, [p.view_as(g) for p, g in zip(parts, grads, strict=True)])


def _leaf(x: Tensor) -> Tensor:
    return x.requires_grad_() if x.is_floating_point() else x


def _require_rows(reps: Any, rows: int, method: Method) -> None:
    for x in tensors(reps):
        if x.dim() == 0 or x.shape[0] != rows:
            raise UserError(
                f"train.accumulate: the representations of {type(method).__name__} have "
                f"{tuple(x.shape)} for {rows} samples; the gradient cache needs one row a sample. "
                "Use train.accumulate=1"
            )
