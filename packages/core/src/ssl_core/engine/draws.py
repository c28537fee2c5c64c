"""Real random draws among tensors without storage.

How many tokens a mask hides, or nodes an augmentation drops, decides the shapes that follow. Those
numbers come from the samples' keys and from ids, small beside the rest. So what is computed from
real tensors alone is computed, and everything else keeps only its shape.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LIMIT = 2**22
"""Largest tensor that is computed: 32 MiB of keys. Dropout masks are larger, and no shape depends
on what they hide."""

_aten = torch.ops.aten
_READ = _aten._local_scalar_dense.default
_COUNT = _aten.bincount.default
_MASKED = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


class RealDraws(TorchDispatchMode):
    """On top of `FakeTensorMode`: operations on real tensors are run while results are small.

    A number read from a tensor without storage is taken as one.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        leaves = tree_leaves((args, kwargs))
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        if any(isinstance(x, FakeTensor) for x in tensors):
            return _without_values(func, args, kwargs)
        if not tensors and "empty" in func._schema.name:
            return func(*args, **kwargs)  # no values to keep
        if _too_large(func, args, kwargs, tensors, leaves):
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            return func(*args, **kwargs)


def _without_values(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func is _READ:
        dtype = args[0].dtype
        return True if dtype == torch.bool else (1.0 if dtype.is_floating_point else 1)
    if func is _COUNT:
        least = kwargs.get("minlength", args[2] if len(args) > 2 else 0)
        return args[0].new_empty(max(1, least), dtype=torch.int64)
    if func in _MASKED:
        args = (args[0], _places(args[1]), *args[2:])
    return func(*args, **kwargs)


def _too_large(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tensors: list[Tensor],
    leaves: list[Any],
) -> bool:
    """Whether the result would exceed the limit; a result without a known shape does not."""
    if any(x.numel() > LIMIT for x in tensors):
        return True
    if func._schema.is_mutable or func is _READ:
        return False
    plain = tensors and not any(isinstance(x, int) and x > 1 for x in leaves)
    if plain and math.prod(max(1, x.numel()) for x in tensors) <= LIMIT:
        return False  # no broadcast can exceed it
    try:
        out = func(*args, **kwargs)
    except Exception:  # nonzero, unique: no shape without values
        return False
    return any(x.numel() > LIMIT for x in tree_leaves(out) if isinstance(x, Tensor))


def _places(indices: Any) -> list[Any]:
    """Real masks among indices as the places they pick."""
    found: list[Any] = []
    for index in indices:
        if index is None or isinstance(index, FakeTensor) or index.dtype != torch.bool:
            found.append(index)
            continue
        with unset_fake_temporarily():
            found += index.nonzero().unbind(1)
    return found


def keeps_values(x: Tensor) -> bool:
    """Whether a tensor is small and made of ids, masks or keys, whose values matter."""
    return not x.dtype.is_floating_point and x.numel() <= LIMIT
