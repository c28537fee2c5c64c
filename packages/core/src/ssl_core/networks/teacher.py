"""A teacher whose weights are an exponential moving average of the student's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ssl_core.networks.pages import on_huge_pages

_FUSED_DEVICES = ("cpu", "cuda")
_PLAIN = {Tensor, nn.Parameter}


def ema_update(
    teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float, finite: Tensor
) -> None:
    """In place, t <- m t + (1 - m) s for every pair, or nothing where `finite` is False.

    `finite` is a 0-dim bool tensor; on an accelerator it is never read by the host.
    """
    old, new = list(teacher), list(student)
    _move(old, new, momentum, finite, one_pass=_lie_alike(old, new))


@torch.no_grad()
def _move(
    old: list[Tensor], new: list[Tensor], momentum: float, finite: Tensor, *, one_pass: bool
) -> None:
    """`one_pass` says that the pairs lie alike (`_lie_alike`)."""
    if not old:
        return
    if one_pass and momentum > 0.5:
        # A step of plain SGD down the gradient t - s, "weight decay" 1 less the "gradient" s. Its
        # kernel reads both and writes one, without memory of its own, and skips on the device (the
        # flag lies where the weights do, wherever the caller keeps his).
        sure = finite.device.type == "cpu" and bool(finite)
        torch._fused_sgd_(
            old,
            new,
            [],
            weight_decay=1.0,
            momentum=0.0,
            lr=1 - momentum,
            dampening=0.0,
            nesterov=False,
            maximize=True,
            is_first_step=False,
            found_inf=None if sure else (~finite).to(old[0].device, torch.float32),
        )
    elif finite.device.type == "cpu":
        if bool(finite):
            torch._foreach_lerp_(old, new, 1 - momentum)  # at momentum 0 an exact copy
    else:
        # A skipped step leaves the student as it was, so the change is finite and 0 times it is 0.
        change = torch._foreach_sub(new, old)
        weight = finite.to(old[0].dtype) * (1 - momentum)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(old, change)


def _lie_alike(old: list[Tensor], new: list[Tensor]) -> bool:
    """Whether all are plain tensors of one kind, each pair in one order of memory without gaps.

    The fused kernel walks memory by that order and asks nothing.
    """
    both = old + new
    return (
        len(old) == len(new)
        and _PLAIN.issuperset(map(type, both))
        and len({(x.dtype, x.device) for x in both}) == 1
        and both[0].is_floating_point()
        and both[0].device.type in _FUSED_DEVICES
        and all(
            t.shape == s.shape and t.stride() == s.stride() and _without_gaps(t)
            for t, s in zip(old, new, strict=True)
        )
    )


def _without_gaps(x: Tensor) -> bool:
    """Whether some order of its dimensions is the order of memory (true of channels last)."""
    return x.permute(sorted(range(x.ndim), key=x.stride, reverse=True)).is_contiguous()


class _Pairs:
    """A teacher's and its student's parameters, and how they lie in memory."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        self.student = student
        self.old: list[Tensor] = list(teacher.parameters())
        self.new: list[Tensor] = list(student.parameters())
        self.one_pass = _lie_alike(self.old, self.new)
        if self.one_pass:
            on_huge_pages(self.old + self.new)
        self.addresses = self._addresses()

    def still(self, student: nn.Module) -> bool:
        """Whether this student has these parameters, where they were when last looked at."""
        return self.student is student and self.addresses == self._addresses()

    def _addresses(self) -> list[int]:
        """Nothing where the layout does not matter: some tensors have no address to ask for."""
        return list(map(Tensor.data_ptr, self.new)) if self.one_pass else []


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
        self._pairs: dict[str, _Pairs] = {}
        for name, network in networks.items():
            self.add_module(name, copy.deepcopy(network).requires_grad_(False))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> nn.Module: ...

    def update(self, method: nn.Module, momentum: float, finite: Tensor) -> None:
        """Moves every network towards the attribute of the same name of `method`."""
        for name in self.names:
            teacher, student = getattr(self, name), getattr(method, name)
            pairs = self._pairs.get(name)
            if pairs is None or not pairs.still(student):
                pairs = self._pairs[name] = _Pairs(teacher, student)
            _move(pairs.old, pairs.new, momentum, finite, one_pass=pairs.one_pass)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Teacher:
        """Forgets the listed parameters: moving a network may replace them."""
        self._pairs.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """The same for loading with `assign=True`."""
        self._pairs.clear()
        super()._load_from_state_dict(*args, **kwargs)
