"""Lists, mappings and dataclasses of tensors, as methods and encoders pass them around."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of `tree` with each child changed; what has no children comes back as it is."""
    if isinstance(tree, (list, tuple)):
        return type(tree)(change(child) for child in tree)
    if isinstance(tree, Mapping):
        return {key: change(child) for key, child in tree.items()}
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{f.name: change(getattr(tree, f.name)) for f in fields(tree)})
    return tree
