"""The public names of a domain package, imported when first used; imports nothing itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

_API = ("build_recipe", "evaluate", "export", "finetune", "load", "pretrain", "resume")


def surface(
    package: str, domain: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], list[str]]:
    """`__getattr__` (PEP 562) and `__all__` of a domain package.

    Arguments: `domain` is "module:NAME" of its domain object and `names` maps further public names
    to "module:attribute". The functions of `ssl_core.api` come with the domain filled in.

        __getattr__, __all__ = surface(__name__, "ssl_vision.domain:VISION", {...})
    """
    places = {domain.partition(":")[2]: domain, **names}

    def attribute(name: str) -> Any:
        if name in places:
            module, _, inside = places[name].partition(":")
            return getattr(importlib.import_module(module), inside)
        if name in _API:
            return importlib.import_module("ssl_core.api").bound(domain)[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute, sorted([*places, *_API])
