"""The training loop: one visible function.

What a run is at step s depends only on its recipe and s: schedules are pure functions of the step,
sample order and every random draw are keyed by it. So a checkpoint holds tensors and a step
number, and a killed run continues to the same bits.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ssl_core import recipe
from ssl_core.batch import Batch
from ssl_core.distributed import all_sum, rank
from ssl_core.engine.anchoring import Anchor
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.engine.gradient_cache import GradientCache
from ssl_core.engine.gradients import Accumulation
from ssl_core.engine.guard import BatchNormGuard, SkipCounter
from ssl_core.engine.health import health_due, judge, measure_health
from ssl_core.engine.metrics import MetricsFile, Window
from ssl_core.engine.optim import build_optimizer, set_schedule
from ssl_core.engine.parallelize import parallelize
from ssl_core.engine.precision import channels_last, numerics, sound_convolutions
from ssl_core.engine.saver import Saver
from ssl_core.engine.shards import full
from ssl_core.engine.signals import StopSignals
from ssl_core.engine.tracing import Tracer
from ssl_core.engine.vote import Vote
from ssl_core.errors import Preempted
from ssl_core.methods.base import Method, Step

_log = logging.getLogger("ssl_core")


class Loader(Protocol):
    """Where batches come from; see `ssl_core.data.Loader`."""

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """The local micro-batches of steps [start, stop), in order, on the device."""


class Callback(Protocol):
    """What may watch a run. Rank 0 only; a callback never changes training."""

    def on_start(self, step: int, steps: int) -> None: ...

    def on_log(self, record: dict[str, Any]) -> None: ...

    def on_end(self, step: int) -> None: ...


@dataclass(frozen=True)
class FitResult:
    """What came out: `steps` done, of which `resumed_from` were done before this call."""

    steps: int
    resumed_from: int
    wall_seconds: float
    samples_per_second: float
    skipped: int
    last: dict[str, Any]


def fit(
    method: Method,
    loader: Loader,
    *,
    train: recipe.Train,
    optimizer: recipe.Optimizer,
    out: Path,
    device: torch.device | str = "cpu",
    identity: Mapping[str, Any] | None = None,
    score: Callable[[nn.Module], float] | None = None,
    score_every: int | None = None,
    start_from: recipe.Start | None = None,
    halt: Callable[[float], bool] | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Trains `method` for `train.steps` steps, or the rest of them where `out` holds a checkpoint.

    Arguments: `loader` yields `train.accumulate` micro-batches a step; `identity` names what must
    not change between saving and resuming; `score(backbone)` (higher is better, on held-out data)
    is taken every `score_every` steps and decides the best checkpoint; training ends early, after
    saving, when `halt(score)` says so. `start_from` holds the encoder still or near its start.

    Raises `Preempted` after saving when a signal asked to stop, `TrainingAborted` after
    `train.max_skipped` non-finite steps in a row.
    """
    device = torch.device(device)
    method.to(device)
    if train.channels_last and train.parallel != "fsdp":  # FSDP splits plain rows only
        channels_last(method)
    sound_convolutions(method, device, train.precision)
    method.train()
    model = parallelize(method, train, optimizer, device)
    opt = build_optimizer(method, optimizer)
    parameters = [p for group in opt.param_groups for p in group["params"]]
    anchor = Anchor(method.encoder, start_from or recipe.Start())
    checkpoints = Checkpoints(out / "checkpoints", keep=train.keep)
    identity = {"steps": train.steps, "batch_size": train.batch_size, "seed": train.seed} | dict(
        identity or {}
    )
    meta = checkpoints.load_newest(method, opt, identity=identity, allow=train.allow)
    start = reached = meta.step if meta else 0
    halted = bool(halt and meta and meta.score is not None and halt(meta.score))
    stop_step = start if halted else train.steps
    cached = train.accumulate > 1 and method.batch_coupled
    gradients = (GradientCache if cached else Accumulation)(model, method, train)

    main = rank() == 0
    out.mkdir(parents=True, exist_ok=True)
    metrics = MetricsFile(out / "metrics.jsonl", after=start) if main else None
    watchers = list(callbacks) if main else []
    guard, skips = BatchNormGuard(method), SkipCounter(device, train.max_skipped)
    skips.total.fill_(meta.skipped if meta else 0)
    window, began = Window(), time.perf_counter()
    record: dict[str, Any] = {}

    saver, vote = Saver(checkpoints, identity), Vote(3)
    tracer = Tracer(out / "profile", train.profile if main else 0)
    closing = _closing(saver, tracer, metrics, *watchers)
    with numerics(train.deterministic, device), StopSignals() as stop, closing:
        for watcher in watchers:
            watcher.on_start(start, train.steps)
        batches = iter(loader.batches(start, train.steps))
        for step in range(start, stop_step):
            anchor.before(step, train.steps)
            set_schedule(opt, optimizer, step, train.steps)
            method.before_step(step, train.steps)
            if train.cuda_graphs:  # the memory of the step before may be written over
                torch.compiler.cudagraph_mark_step_begin()
            guard.remember()
            loss, waited = gradients(batches, step)

            anchor.apply(step, train.steps)
            norm = full(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
            finite = norm.isfinite()  # gradients are averaged over ranks, so all ranks agree
            if optimizer.clip is not None:
                nn.utils.clip_grads_with_norm_(parameters, optimizer.clip, norm)
            _optimiser_step(opt, finite)
            opt.zero_grad(set_to_none=True)
            guard.restore_unless(finite)
            method.after_step(Step(step, train.steps, finite))
            skips.count(finite)
            tracer.step()

            done = reached = step + 1
            window.add(loss, norm, samples=train.batch_size, waited=waited)
            last = done == train.steps
            scored = score if score_every and done % score_every == 0 else None
            held_out = None
            if done % train.log_every == 0 or last or scored is not None:
                skips.check(done)
                record = {"step": done, "steps": train.steps, **window.close()}
                record["lr"] = opt.param_groups[0]["lr"]
                record["skipped"] = int(skips.total)
                if last or health_due(method, done, every=train.log_every):
                    record |= measure_health(method)
                if scored is not None:
                    held_out = record["score"] = scored(method.backbone)
                    method.train()
                    halted = halt is not None and _any_rank(halt(held_out), device)
                if metrics is not None:
                    record["verdict"] = judge([*metrics.records, record])
                    metrics.write(record)
                for watcher in watchers:
                    watcher.on_log(record)

            asked, *written = vote.cast(int(stop.received is not None), *saver.progress)
            saver.observe(*written)
            stopping = asked > 0 and not halted
            last = last or halted
            if done % train.save_every == 0 or last or stopping or scored is not None:
                saver.start(
                    done,
                    method,
                    method.backbone,
                    opt,
                    skipped=int(skips.total),
                    score=held_out,
                    vote=vote,
                )
            if last or stopping:
                saver.finish(vote, required=True)
            if stopping and not last:
                raise Preempted(_stop_message(stop.received, done, train.steps))
            if halted:
                break
        for watcher in watchers:
            watcher.on_end(reached)

    seconds = time.perf_counter() - began
    done = reached - start
    rate = done * train.batch_size / seconds if done else 0.0
    return FitResult(reached, start, seconds, rate, int(skips.total), record)


def _any_rank(flag: bool, device: torch.device) -> bool:
    """Whether any rank says yes; all ranks hear the same."""
    return bool(all_sum(torch.tensor(float(flag), device=device)) > 0)


def _optimiser_step(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Steps, or leaves parameters and moments untouched where `finite` is False.

    On an accelerator the fused kernels read the flag themselves: the host never waits for it.
    """
    if finite.device.type == "cpu":
        if bool(finite):
            optimizer.step()
        return
    optimizer.found_inf = (~finite).to(torch.float32)  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.step()


@contextlib.contextmanager
def _closing(*things: Any) -> Iterator[None]:
    """Closes what can be closed, also after an error."""
    try:
        yield
    finally:
        for thing in things:
            close = getattr(thing, "close", None)
            if close is not None:
                close()


def _stop_message(signal_number: int | None, done: int, steps: int) -> str:
    name = "another rank's signal" if signal_number is None else f"signal {signal_number}"
    return f"stopped by {name} after step {done} of {steps}; everything was saved"
