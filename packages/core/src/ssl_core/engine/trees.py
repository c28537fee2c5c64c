"""Lists, mappings and dataclasses of tensors, as methods and encoders pass them around."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of `tree` with each child changed; what has no children comes back as it is."""
    if isinstance(tree, (list, tuple)):
        changed = [change(child) for child in tree]
        return type(tree)(*changed) if hasattr(tree, "_fields") else type(tree)(changed)
    if isinstance(tree, Mapping):
        return {key: change(child) for key, child in tree.items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: change(getattr(tree, f.name)) for f in fields(tree)})
    return tree


def tensors(tree: Any) -> list[Tensor]:
    """The tensors inside, however deep, in a fixed order."""
    return list(_walk(tree))


def _walk(tree: Any) -> Iterator[Tensor]:
    # No function that calls itself from inside another: it would be a cycle, which keeps every
    # tensor it has seen alive until the collector comes by.
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for child in tree:
            yield from _walk(child)
    elif isinstance(tree, Mapping):
        for child in tree.values():
            yield from _walk(child)
    elif is_dataclass(tree) and not isinstance(tree, type):
        for field in fields(tree):
            yield from _walk(getattr(tree, field.name))


def with_tensors(tree: Any, new: Iterator[Tensor]) -> Any:
    """The same structure with other tensors, taken in the order of `tensors`."""
    if isinstance(tree, Tensor):
        return next(new)
    return mapped(tree, lambda child: with_tensors(child, new))
