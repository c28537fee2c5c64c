"""The expensive half of self-distillation: cross-entropies of all view pairs, lean in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_BLOCK_ENTRIES = {"cpu": 2**18}
"""Logits of one view worked on at once: 1 MiB of float32 stays in a CPU's cache."""


def pair_cross_entropy(
    student: list[Tensor],
    teacher: list[Tensor],
    *,
    center: Tensor | float,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Sum over pairs (teacher q, student v != q) of the mean over rows of the cross-entropy.

    All views are `[B, K]`; targets are softmax((teacher - center) / teacher_temperature) without
    gradient. The cross-entropy is linear in its target, so each student view meets the sum of
    its targets: one pass a view, not one a pair. Rows go through in blocks and the gradient is
    formed on the way; neither targets nor log-probabilities are kept. Not twice differentiable.
    """
    result: Tensor = _PairCrossEntropy.apply(
        center, student_temperature, teacher_temperature, len(teacher), *teacher, *student
    )
    return result


class _PairCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        center: Tensor | float,
        student_temperature: float,
        teacher_temperature: float,
        teachers: int,
        *logits: Tensor,
    ) -> Tensor:
        teacher, student = logits[:teachers], logits[teachers:]
        needed = ctx.needs_input_grad[4 + teachers :]
        grads = [
            torch.empty_like(s) if need else None for s, need in zip(student, needed, strict=True)
        ]
        batch, classes = student[0].shape
        total = student[0].new_zeros(())
        for rows in _blocks(batch, classes, student[0].device.type):
            targets = [((t[rows] - center) / teacher_temperature).softmax(1) for t in teacher]
            everything = targets[0] if teachers == 1 else torch.stack(targets).sum(0)  # [r, K]
            for view, (s, grad) in enumerate(zip(student, grads, strict=True)):
                own = view < teachers
                mass = teachers - int(own)
                wanted = everything - targets[view] if own else everything  # [r, K], sums to mass
                block = None if grad is None else grad[rows]
                total = total + _view(s[rows], wanted, mass, student_temperature, block)
        for grad in grads:
            if grad is not None:
                grad.mul_(1 / (student_temperature * batch))
        ctx.teachers = teachers
        ctx.save_for_backward(*grads)
        return total / batch

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        grads = [None if saved is None else saved * upstream[0] for saved in ctx.saved_tensors]
        return *[None] * (4 + ctx.teachers), *grads


def _view(
    logits: Tensor, wanted: Tensor, mass: int, temperature: float, grad: Tensor | None
) -> Tensor:
    """Sum over rows `[r, K]` of mass * logsumexp(x) - <wanted, x>, x = logits / temperature.

    Writes the gradient with respect to x into `grad`.
    """
    x = logits / temperature
    top = x.amax(1, keepdim=True)
    agreement = (wanted * x).sum()
    p = x.sub_(top).exp_()
    z = p.sum(1, keepdim=True)
    if grad is not None:
        torch.sub(p.mul_(mass / z), wanted, out=grad)
    return mass * (top + z.log()).sum() - agreement


def _blocks(rows: int, classes: int, device: str) -> list[slice]:
    size = max(1, _BLOCK_ENTRIES.get(device, 2**28) // classes)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
