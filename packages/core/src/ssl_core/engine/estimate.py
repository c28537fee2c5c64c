"""One training step without memory: the engine's own code on tensors that have no storage.

What a step holds, computes and moves is what it will be in training, since nothing here repeats
the training: gradients come from `Accumulation` or the gradient cache, layouts from
`parallelize`, between as many processes as asked for, of which only this one exists.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.distributed import world_size
from ssl_core.engine.draws import RealDraws, keeps_values
from ssl_core.engine.gradient_cache import GradientCache
from ssl_core.engine.gradients import Accumulation
from ssl_core.engine.ledger import Ledger
from ssl_core.engine.optim import build_optimizer
from ssl_core.engine.parallelize import parallelize
from ssl_core.engine.precision import channels_last
from ssl_core.engine.trees import mapped, tensors
from ssl_core.errors import UserError
from ssl_core.methods.base import Method, Step
from ssl_core.views import View


@dataclass(frozen=True)
class Estimate:
    """One step of one process: bytes by what holds them when most is held, FLOPs, traffic.

    `kept` is what stays between steps; `traffic` counts bytes that operations read and write.
    """

    peak: Mapping[str, int]
    kept: Mapping[str, int]
    flops: int
    traffic: int


@contextlib.contextmanager
def fake_world(size: int) -> Iterator[None]:
    """A process group of `size` in which only rank 0 exists and every exchange is left out."""
    if size == 1:
        yield
        return
    if dist.is_initialized():
        raise UserError("plan: this process is one of a launcher's; plan without torchrun")
    # Importing it registers the backend "fake".
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def estimate(
    method: Method,
    views: Sequence[View],
    *,
    rows: int,
    train: recipe.Train,
    optimizer: recipe.Optimizer,
    world: int = 1,
) -> Estimate:
    """The second step of `method`, which is changed in place, as one of `world` processes.

    `views` are those of some samples; a micro-batch of `rows` samples is made of tensors like
    them. Not counted: what kernels take inside an operation, and what compiling would save.
    Raises `UserError` where the engine refuses the combination.
    """
    train = train.model_copy(update={"compile": False, "cuda_graphs": False})
    ids, finite = torch.arange(rows), torch.tensor(True)
    with (
        warnings.catch_warnings(action="ignore"),  # what training has to say, it says then
        fake_world(world),
        torch.random.fork_rng(devices=[]),
        FakeTensorMode(allow_non_fake_inputs=True),
        RealDraws(),  # type: ignore[no-untyped-call]
        Ledger() as ledger,
    ):
        strip(method)
        if train.channels_last and train.parallel != "fsdp":
            channels_last(method)
        method.train()
        held = _like(views, len(views[0]), rows)
        ledger.hold(tensors(held), "views")
        method.views = lambda batch, rng: held  # type: ignore[method-assign]
        method.encode = ledger.during("activations", method.encode)  # type: ignore[method-assign]
        method.loss = ledger.during("loss", method.loss)  # type: ignore[method-assign]
        ledger.hold(method.buffers(), "buffers")
        model = parallelize(method, train, optimizer, torch.device("cpu"), replicate=_Replica)
        for p in method.parameters():
            ledger.hold([p], "parameters" if p.requires_grad else "teacher")
        _hook_gradients(method, ledger)
        with ledger.within("optimiser"):
            opt = build_optimizer(method, optimizer)
            for p in method.parameters():
                p.grad = torch.zeros_like(p) if p.requires_grad else None
            opt.step()
            opt.zero_grad(set_to_none=True)
        cached = train.accumulate > 1 and method.batch_coupled
        gradients = (GradientCache if cached else Accumulation)(model, method, train)

        ledger.restart()
        method.before_step(1, 100)
        with ledger.within("workspace"):
            gradients(iter([Batch(None, ids, ids)] * train.accumulate), 1)
            parameters = [p for p in method.parameters() if p.grad is not None]
            norm = nn.utils.get_total_norm([p.grad for p in parameters])  # type: ignore[misc]
            if optimizer.clip is not None:
                nn.utils.clip_grads_with_norm_(parameters, optimizer.clip, norm)
            opt.step()
        opt.zero_grad(set_to_none=True)
        del parameters
        with ledger.within("workspace"):
            method.after_step(Step(1, 100, finite))
        return Estimate(
            _positive(ledger.peak), _positive(ledger.live), ledger.flops, ledger.traffic
        )


class _Replica(nn.Module):
    """Stands for `DistributedDataParallel`, which needs tensors with storage.

    Its buckets hold all gradients for the whole run.
    """

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, *given: Any, **named: Any) -> Any:
        return self.method(*given, **named)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        yield


def _hook_gradients(method: nn.Module, ledger: Ledger) -> None:
    """Books gradients as such, or where replicas keep them for good, into their buckets."""
    buckets = world_size() > 1 and not any(hasattr(m, "unshard") for m in method.modules())

    def hooked(p: Tensor, bucket: Tensor | None) -> None:
        def book(_: Tensor) -> None:
            if bucket is not None:
                p.grad = bucket
            elif p.grad is not None:
                ledger.hold([p.grad], "gradients")

        p.register_post_accumulate_grad_hook(book)

    for p in method.parameters():
        if p.requires_grad:
            bucket = torch.empty_like(p) if buckets else None
            if bucket is not None:
                ledger.hold([bucket], "gradients")
            hooked(p, bucket)


def strip(module: nn.Module) -> None:
    """Replaces every tensor inside a module by one without storage, ties kept, in place.

    Tables of ids that were computed keep their values.
    """
    made: dict[int, Tensor] = {}

    def bare(x: Tensor) -> Tensor:
        if not isinstance(x, nn.Parameter) and not x.is_meta and keeps_values(x):
            return x
        if id(x) not in made:
            new: Tensor = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
            if isinstance(x, nn.Parameter):
                new = nn.Parameter(new, requires_grad=x.requires_grad)
            made[id(x)] = new
        return made[id(x)]

    for child in module.modules():
        places: tuple[dict[str, Any], ...] = (child._parameters, child._buffers, child.__dict__)
        for place in places:
            for name, value in place.items():
                if isinstance(value, Tensor):
                    place[name] = bare(value)


def _like(tree: Any, before: int, rows: int) -> Any:
    """The tree with new tensors, of `rows` rows where they had `before`; ids keep their values."""
    if isinstance(tree, Tensor):
        grows = tree.dim() > 0 and tree.shape[0] == before
        if keeps_values(tree):
            with unset_fake_temporarily():
                return tree[torch.arange(rows) % before] if grows else tree
        return torch.empty((rows, *tree.shape[1:]) if grows else tree.shape, dtype=tree.dtype)
    return mapped(tree, lambda child: _like(child, before, rows))


def _positive(sizes: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if size > 0}
