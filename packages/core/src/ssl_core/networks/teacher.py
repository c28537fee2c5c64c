"""A teacher whose weights are an exponential moving average of the student's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def ema_update(
    teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float, finite: Tensor
) -> None:
    """In place, t <- m t + (1 - m) s for every pair, or nothing where `finite` is False.

    `finite` is a 0-dim bool tensor; on an accelerator it is never read by the host.
    """
    old = teacher if isinstance(teacher, list) else list(teacher)
    new = student if isinstance(student, list) else list(student)
    if not old:
        return
    if finite.device.type == "cpu":
        if bool(finite):
            torch._foreach_lerp_(old, new, 1 - momentum)
        return
    # A skipped step leaves the student as it was, so the change is finite and 0 times it is 0.
    change = torch._foreach_sub(new, old)
    weight = finite.to(old[0].dtype) * (1 - momentum)
    torch._foreach_mul_(change, weight)
    torch._foreach_add_(old, change)


class Teacher(nn.Module):
    """Copies of a method's networks under the same names, without gradient.

        self.teacher = Teacher(encoder=encoder, projector=self.projector)
        ...
        self.teacher.update(self, momentum, step.finite)

    The average is kept in the parameters' own precision (fp32 under autocast; in bf16 a momentum
    near 1 would lose every update). Buffers are the teacher's own: batch norm inside it keeps the
    statistics of what it sees (BYOL, DINO).
    """

    def __init__(self, **networks: nn.Module) -> None:
        super().__init__()
        self.names = tuple(networks)
        # Walking hundreds of modules costs as much as the update itself.
        self._pairs: dict[str, tuple[nn.Module, list[Tensor], list[Tensor]]] = {}
        for name, network in networks.items():
            self.add_module(name, copy.deepcopy(network).requires_grad_(False))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> nn.Module: ...

    def update(self, method: nn.Module, momentum: float, finite: Tensor) -> None:
        """Moves every network towards the attribute of the same name of `method`."""
        for name in self.names:
            teacher, student = getattr(self, name), getattr(method, name)
            known = self._pairs.get(name)
            if known is None or known[0] is not student:
                known = student, list(teacher.parameters()), list(student.parameters())
                self._pairs[name] = known
            ema_update(known[1], known[2], momentum, finite)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Teacher:
        """Forgets the listed parameters: moving a network may replace them."""
        self._pairs.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """The same for loading with `assign=True`."""
        self._pairs.clear()
        super()._load_from_state_dict(*args, **kwargs)
