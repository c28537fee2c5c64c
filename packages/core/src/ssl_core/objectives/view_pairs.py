"""The expensive half of self-distillation: cross-entropies of all view pairs, lean in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ssl_core.objectives.precision import LN_2, LOG2_E, power_

_BLOCK_ENTRIES = {"cpu": 2**18}
"""Logits of one view worked on at once: 1 MiB of float32 stays in a CPU's cache."""
_PRODUCT_ENTRIES = {"cpu": 2**21}
"""The same when logits are products made on the spot: matrix products want more rows."""


class Scores(NamedTuple):
    """Logits `features @ prototypes.T`, `[B, D]` and `[K, D]`, that are never stored.

    Objectives that take logits view by view take these instead: each block of rows is multiplied,
    used and forgotten, forward and gradient in one pass.
    """

    features: Tensor
    prototypes: Tensor


Logits = Tensor | Scores


@dataclass(frozen=True)
class Targets:
    """How a teacher's scores become targets: softmax((t - center) / temperature), or as given."""

    temperature: float
    center: Tensor | float = 0.0
    given: bool = False

    def of(self, scores: Tensor) -> Tensor:
        """Target probabilities `[r, K]`."""
        if self.given:
            return scores
        x = (scores - self.center).mul_(LOG2_E / self.temperature)  # to base 2
        p = power_(x.sub_(x.amax(1, keepdim=True)))
        return p.div_(p.sum(1, keepdim=True))


def pair_cross_entropy(
    student: Sequence[Logits],
    teacher: Sequence[Logits],
    *,
    targets: Targets,
    temperature: float,
    same_view: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over pairs (teacher q, student v != q) of the cross-entropy, mean over rows.

    All views are `[B, K]`, as logits or `Scores`; teachers receive no gradient. With `same_view`
    the pair v = q counts as well. `weights` `[B]` (no gradient) replace the mean's 1/B.

    The cross-entropy is linear in its target, so each student view meets the sum of its targets:
    one pass a view, not one a pair. Rows go through in blocks and the gradient is formed on the
    way; neither targets nor log-probabilities are kept. Not twice differentiable.
    """
    if temperature <= 0 or targets.temperature <= 0:
        raise ValueError(
            f"cross-entropy to a teacher: temperatures must be positive, got {temperature} of the "
            f"student and {targets.temperature} of the teacher"
        )
    views = [*teacher, *student]
    tables: list[Tensor] = []
    layout: list[int] = []  # which table multiplies a view, -1 for logits as they are
    for view in views:
        if isinstance(view, Tensor):
            layout.append(-1)
            continue
        known = [i for i, table in enumerate(tables) if table is view.prototypes]
        layout.append(known[0] if known else len(tables))
        tables += [] if known else [view.prototypes]
    rows = [view if isinstance(view, Tensor) else view.features for view in views]
    pairs = len(teacher) * (len(student) - (0 if same_view else 1))
    plan = _Plan(targets, temperature, len(teacher), same_view, 1 / pairs, tuple(layout))
    result: Tensor = _PairCrossEntropy.apply(plan, weights, *tables, *rows)
    return result


@dataclass(frozen=True)
class _Plan:
    targets: Targets
    temperature: float
    teachers: int
    same_view: bool
    scale: float
    layout: tuple[int, ...]


class _PairCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: _Plan, weights: Tensor | None, *inputs: Tensor) -> Tensor:
        tables, views = inputs[: -len(plan.layout)], inputs[-len(plan.layout) :]
        need = ctx.needs_input_grad[2:]
        first = len(tables) + plan.teachers
        students = range(plan.teachers, len(views))
        table_grads = [
            torch.zeros_like(t) if n else None for t, n in zip(tables, need, strict=False)
        ]
        grads = [
            torch.empty_like(s) if n else None
            for s, n in zip(views[plan.teachers :], need[first:], strict=True)
        ]
        batch = views[0].shape[0]
        classes = tables[plan.layout[0]].shape[0] if plan.layout[0] >= 0 else views[0].shape[1]
        total = views[-1].new_zeros(())
        for rows in _blocks(batch, classes, views[0].device.type, product=bool(tables)):

            def scores(view: int, rows: slice = rows) -> Tensor:
                """Logits of one view's rows, `[r, K]`."""
                table = plan.layout[view]
                return views[view][rows] if table < 0 else views[view][rows] @ tables[table].T

            wanted = [plan.targets.of(scores(t)) for t in range(plan.teachers)]
            everything = wanted[0] if len(wanted) == 1 else torch.stack(wanted).sum(0)
            share: float | Tensor = plan.scale / batch
            if weights is not None:
                share = plan.scale * weights[rows].unsqueeze(1)
            for v in students:
                view = v - plan.teachers
                own = view < plan.teachers and not plan.same_view
                if own and plan.teachers == 1:
                    # The only teacher's own view meets no target at all.
                    if grads[view] is not None:
                        grads[view][rows] = 0  # type: ignore[index]
                    continue
                target = everything - wanted[view] if own else everything  # sums to `mass`
                mass = plan.teachers - int(own)
                g = _view(scores(v), target, mass, plan.temperature, share, ctx.needs_input_grad)
                total = total + g.loss
                table, grad = plan.layout[v], grads[view]
                if table < 0:
                    if grad is not None:
                        grad[rows] = g.grad
                    continue
                if grad is not None:
                    torch.mm(g.grad, tables[table], out=grad[rows])
                if (moved := table_grads[table]) is not None:
                    moved.addmm_(g.grad.T, views[v][rows])
        ctx.save_for_backward(*table_grads, *grads)
        ctx.teachers = plan.teachers
        ctx.tables = len(tables)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        scale = upstream[0]
        # These gradients are as large as the logits: a copy scaled by one would double the peak.
        readable = scale.device.type == "cpu" and not torch.compiler.is_compiling()
        as_is = readable and scale.item() == 1
        grads = [g if g is None or as_is else g * scale for g in ctx.saved_tensors]
        tables, students = grads[: ctx.tables], grads[ctx.tables :]
        return None, None, *tables, *[None] * ctx.teachers, *students


class _Part(NamedTuple):
    loss: Tensor
    grad: Tensor


def _view(
    logits: Tensor,
    wanted: Tensor,
    mass: int,
    temperature: float,
    share: float | Tensor,
    needed: Sequence[bool],
) -> _Part:
    """Sum over rows `[r, K]` of share * (mass * logsumexp(x) - <wanted, x>), x = logits / T.

    Also its gradient with respect to the logits, if anything needs one.
    """
    x = logits * (LOG2_E / temperature)  # to base 2
    top = x.amax(1, keepdim=True)
    agreement = torch.linalg.vecdot(wanted, x).unsqueeze(1)  # [r, 1]
    p = power_(x.sub_(top))
    z = p.sum(1, keepdim=True)
    loss = (share * (mass * (LN_2 * top + z.log()) - LN_2 * agreement)).sum()
    if any(needed):
        p.mul_(mass / z).sub_(wanted).mul_(share / temperature)
    return _Part(loss, p)


def _blocks(rows: int, classes: int, device: str, *, product: bool) -> list[slice]:
    entries = _PRODUCT_ENTRIES if product else _BLOCK_ENTRIES
    size = max(1, entries.get(device, 2**28) // classes)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
