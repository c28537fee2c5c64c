"""Counts what a computation holds, moves and multiplies, operation by operation.

It works the same on tensors without storage (`FakeTensorMode`), where it costs no memory, and on
real ones. What kernels take inside themselves and give back before they return is not seen.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from ssl_core.engine.trees import tensors

_aten = torch.ops.aten


def _cpu_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _cpu_attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


# torch's own table knows only the kernels of accelerators.
_ATTENTION: dict[Any, Callable[..., int]] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward,
}


class Ledger(TorchDispatchMode):
    """While active: bytes of live storages by the phase that made them, and their peak.

    `flops` are those of products, convolutions and attention (two a multiply-add, the formulas of
    torch's `FlopCounterMode`); `traffic` is what operations read and write, in bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = "other"
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.flops = 0
        self.traffic = 0
        self._total = self._highest = 0
        # id of a storage -> its phase, its bytes; finalisers take entries out again.
        self._held: dict[int, tuple[str, int]] = {}
        self._before: Any = None

    def during(self, phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, whose new storages belong to `phase`; what follows is the phase before it."""

        def phased(*given: Any, **named: Any) -> Any:
            with self.within(phase):
                return call(*given, **named)

        return phased

    @contextlib.contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """New storages belong to `phase` for a while."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def hold(self, held: Iterable[Tensor], phase: str) -> None:
        """Counts tensors made elsewhere, or moves known ones to another phase."""
        for tensor in held:
            self._note(tensor, phase)

    def restart(self) -> None:
        """Forgets peak, FLOPs and traffic; what is held now is the new peak."""
        self.flops = self.traffic = 0
        self._highest, self.peak = self._total, Counter(self.live)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its parts come by one by one
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = tensors([args, kwargs])
        places = {id(x.untyped_storage()) for x in given}
        made = tensors(out)
        for tensor in made:
            self._note(tensor, self.phase, moved=False)
        if func._schema.is_mutable or any(id(x.untyped_storage()) not in places for x in made):
            self.traffic += sum(_bytes(x) for x in (*given, *made))
        packet = func._overloadpacket
        formula = flop_registry.get(packet)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=out)
        elif packet in _ATTENTION:
            self.flops += _ATTENTION[packet](*args, **kwargs)
        return out

    def __enter__(self) -> Ledger:
        # FSDP gives memory back by resizing storages, which no operation tells of.
        self._before = torch.UntypedStorage.resize_

        def resize(storage: Any, size: int) -> Any:
            out = self._before(storage, size)
            self._resized(storage)
            return out

        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign, assignment]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self._before  # type: ignore[method-assign]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _note(self, tensor: Tensor, phase: str, *, moved: bool = True) -> None:
        if isinstance(tensor, DTensor):
            tensor = tensor.to_local()
        storage = tensor.untyped_storage()
        known = self._held.get(id(storage))
        if known is not None:
            if moved:
                self._forget(id(storage))
                self._enter(id(storage), phase, storage.nbytes())
            return
        self._enter(id(storage), phase, storage.nbytes())
        weakref.finalize(storage, self._forget, id(storage)).atexit = False

    def _resized(self, storage: torch.UntypedStorage) -> None:
        known = self._held.get(id(storage))
        if known is not None:
            self._forget(id(storage))
            self._enter(id(storage), known[0], storage.nbytes())

    def _enter(self, key: int, phase: str, size: int) -> None:
        self._held[key] = phase, size
        self.live[phase] += size
        self._total += size
        if self._total > self._highest:
            self._highest, self.peak = self._total, Counter(self.live)

    def _forget(self, key: int) -> None:
        phase, size = self._held.pop(key, ("", 0))
        self.live[phase] -= size
        self._total -= size


def _bytes(tensor: Tensor) -> int:
    """What reading the tensor takes; an expanded one is read where it lies."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
