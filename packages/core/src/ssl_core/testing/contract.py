"""The checks that any domain, also a third party's, runs over every method it declares."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.data import split_holdout
from ssl_core.domain import Domain
from ssl_core.engine.precision import autocast, sound_convolutions
from ssl_core.methods.base import Loss, Method, Step
from ssl_core.recipe import Data
from ssl_core.rng import Rng
from ssl_core.tensors import unshared

SEED = 11
FRESH = "fresh"
"""As a case's option `teacher`: another encoder of the case's own kind."""


@dataclass(frozen=True)
class MethodCase:
    """One method with a tiny encoder and small heads, as names and options of the registries."""

    method: str
    views: str
    encoder: str
    options: Mapping[str, Any] = field(default_factory=dict)
    view_options: Mapping[str, Any] = field(default_factory=dict)
    encoder_options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.method


def options_of(domain: Domain, case: MethodCase, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A case's options, with a fresh teacher built."""
    options = dict(case.options)
    if options.get("teacher") == FRESH:
        options["teacher"] = domain.create_encoder(case.encoder, spec, case.encoder_options)
    return options


class Contract:
    """A domain's sample data, and the checks over its method cases."""

    def __init__(
        self,
        domain: Domain,
        cases: Sequence[MethodCase],
        folder: Path,
        *,
        count: int = 40,
        data_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes `count` samples into the empty `folder` and reads them."""
        self.domain = domain
        self.cases = list(cases)
        self._batches: dict[tuple[int, ...], Batch] = {}
        domain.samples(folder, count=count, seed=SEED)
        data = Data(path=str(folder), options=dict(data_options or {}))
        self.source, _ = split_holdout(domain.open(data), 0.2)
        self.reader = domain.fit_reader(self.source, data)

    def undeclared(self) -> tuple[set[str], set[str]]:
        """(methods without a case, cases without a declared method): both must be empty."""
        declared, covered = set(self.domain.methods), {case.method for case in self.cases}
        return declared - covered, covered - declared

    def batch(self, rows: Sequence[int]) -> Batch:
        """The records `rows`; read once, since no check may write into them."""
        key = tuple(rows)
        if key not in self._batches:
            self._batches[key] = self.read(rows)
        return self._batches[key]

    def read(self, rows: Sequence[int]) -> Batch:
        """The records `rows` from their files, collated as the loader would."""
        records = [self.source[i] for i in rows]
        ids = torch.tensor(rows, dtype=torch.int64)
        labels = torch.tensor([-1 if r.label is None else r.label for r in records])
        data = self.reader.collate([self.reader.decode(record) for record in records])
        return Batch(data, ids, ids, tuple(record.key for record in records), labels)

    def build(self, case: MethodCase) -> Method:
        """A fresh method with a fixed initialisation, in training mode."""
        spec = self.reader.spec
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            views = self.domain.create_views(case.views, spec, case.view_options)
            encoder = self.domain.create_encoder(case.encoder, spec, case.encoder_options)
            options = options_of(self.domain, case, spec)
            method: Method = self.domain.methods.build(case.method, encoder, views, options=options)
        return method.train()

    def check(self, case: MethodCase, names: Sequence[str] | None = None) -> None:
        """Runs the named checks (all by default); `AssertionError` on the first to fail."""
        for name in CHECKS if names is None else names:
            CHECKS[name](self, case)

    def loss(self, method: Method, batch: Batch, *, step: int = 3) -> Loss:
        """The loss of one step of a run of 10."""
        method.before_step(step, 10)
        with torch.no_grad():
            views = method.views(batch, Rng.at(SEED, step, batch.ids))
        loss: Loss = method(views)
        return loss


def finite_and_parts_sum(contract: Contract, case: MethodCase) -> None:
    """The loss is a finite scalar, and its named parts add up to it."""
    loss = contract.loss(contract.build(case), contract.batch(range(8)))
    assert loss.total.shape == (), f"loss must be a scalar, got {tuple(loss.total.shape)}"
    assert torch.isfinite(loss.total), f"loss is {loss.total}"
    total = torch.stack(list(loss.parts.values())).sum()
    torch.testing.assert_close(total, loss.total.detach(), rtol=1e-5, atol=1e-6)


def gradient_where_it_belongs(contract: Contract, case: MethodCase) -> None:
    """Every trainable parameter has a finite gradient; nothing else has any."""
    method = contract.build(case)
    contract.loss(method, contract.batch(range(8))).total.backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} is trainable but got no gradient"
            assert torch.isfinite(parameter.grad).all(), f"{name} has a non-finite gradient"
        else:
            assert parameter.grad is None, f"{name} is frozen but got a gradient"
    moved = [p for p in method.encoder.parameters() if p.grad is not None and p.grad.any()]
    assert moved, "no encoder parameter has a non-zero gradient"


def deterministic(contract: Contract, case: MethodCase) -> None:
    """The same step gives the same bits; another step gives another loss."""
    batch = contract.batch(range(8))
    first = contract.loss(contract.build(case), batch).total
    again = contract.loss(contract.build(case), batch).total
    other = contract.loss(contract.build(case), batch, step=4).total
    assert torch.equal(first, again), f"the same step gave {first} and {again}"
    assert not torch.equal(first, other), "steps 3 and 4 gave the same loss: are draws keyed?"


def views_do_not_depend_on_the_batch(contract: Contract, case: MethodCase) -> None:
    """A sample's views are the same whatever stands beside it in the batch.

    Keys and tensors are compared bit for bit; other batch types by what the encoder makes of them.
    """
    method = contract.build(case).eval()

    @torch.no_grad()
    def seen(rows: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        batch = contract.batch(rows)
        views = method.views(batch, Rng.at(SEED, 3, batch.ids))
        exact = [view.rng.key for view in views]
        exact += [view.data for view in views if isinstance(view.data, Tensor)]
        seen = [view for view in views if view.role != "caption"]  # those are another tower's
        return exact, [features.pooled for features in method.features(seen)]

    (keys, embedded), (tail_keys, tail_embedded) = seen(range(6)), seen(range(4, 6))
    for whole, tail in zip(keys, tail_keys, strict=True):
        assert torch.equal(whole[4:6], tail), "views changed with the batch they were made in"
    for whole, tail in zip(embedded, tail_embedded, strict=True):
        torch.testing.assert_close(whole[4:6], tail, rtol=1e-4, atol=1e-5)


def no_global_randomness(contract: Contract, case: MethodCase) -> None:
    """Neither reading, views, forward nor loss touches global random state."""
    method = contract.build(case)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    python_state = random.getstate()
    contract.loss(method, contract.read(range(8)))
    assert torch.equal(torch_state, torch.get_rng_state()), "torch's generator was used"
    for a, b in zip(numpy_state, np.random.get_state(), strict=True):  # noqa: NPY002
        assert np.array_equal(a, b), "NumPy's global generator was used"
    assert python_state == random.getstate(), "Python's global generator was used"


def saves_and_loads(contract: Contract, case: MethodCase) -> None:
    """A state saved as safetensors and loaded into another instance gives the same loss."""
    method, other = contract.build(case), contract.build(case)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.mul_(1.01)
    batch = contract.batch(range(8))
    stored, aliases = unshared(method.state_dict())
    loaded = load(save(stored))
    other.load_state_dict(loaded | {alias: loaded[name] for alias, name in aliases.items()})
    assert torch.equal(contract.loss(method, batch).total, contract.loss(other, batch).total)


def works_at_batch_two(contract: Contract, case: MethodCase) -> None:
    """The smallest batch with a negative still trains."""
    loss = contract.loss(contract.build(case), contract.batch([0, 1])).total
    assert torch.isfinite(loss), f"loss at batch 2 is {loss}"
    loss.backward()


def finite_under_bf16(contract: Contract, case: MethodCase) -> None:
    """bf16 autocast gives a finite loss and finite gradients."""
    method = contract.build(case)
    cpu = torch.device("cpu")
    sound_convolutions(method, cpu, "bf16")
    with autocast(cpu, "bf16"):
        loss = contract.loss(method, contract.batch(range(8))).total
    loss.backward()
    assert torch.isfinite(loss), f"loss in bf16 is {loss}"
    for name, parameter in method.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), f"{name}: non-finite gradient in bf16"


def bad_steps_change_nothing(contract: Contract, case: MethodCase) -> None:
    """After a non-finite step, `after_step` leaves every tensor of the method as it was."""
    method = contract.build(case)
    contract.loss(method, contract.batch(range(8)))
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method.after_step(Step(3, 10, torch.tensor(False)))
    for name, tensor in method.state_dict().items():
        assert torch.equal(before[name], tensor), f"{name} changed after a non-finite step"


CHECKS: dict[str, Callable[[Contract, MethodCase], None]] = {
    check.__name__: check
    for check in (
        finite_and_parts_sum,
        gradient_where_it_belongs,
        deterministic,
        views_do_not_depend_on_the_batch,
        no_global_randomness,
        saves_and_loads,
        works_at_batch_two,
        finite_under_bf16,
        bad_steps_change_nothing,
    )
}
