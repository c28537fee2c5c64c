"""The public names of a package, imported when first used; imports nothing itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

API = (
    "adapt",
    "build_recipe",
    "evaluate",
    "export",
    "finetune",
    "load",
    "plan",
    "pretrain",
    "resume",
)
"""The functions of `ssl_core.api` that every domain package offers."""


def lazy(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], list[str]]:
    """`__getattr__` (PEP 562) and `__all__` of a package: public name -> "module:attribute"."""

    def attribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, inside = names[name].partition(":")
        return getattr(importlib.import_module(module), inside)

    return attribute, sorted(names)


def surface(
    package: str, domain: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], list[str]]:
    """`__getattr__` and `__all__` of a domain package.

    Arguments: `domain` is "module:NAME" of its domain object and `names` maps further public names
    to "module:attribute". The functions of `ssl_core.api` come with the domain filled in.

        __getattr__, __all__ = surface(__name__, "ssl_vision.domain:VISION", {...})
    """
    own, listed = lazy(package, {domain.partition(":")[2]: domain, **names})

    def attribute(name: str) -> Any:
        if name in API:
            return importlib.import_module("ssl_core.api").bound(domain)[name]
        return own(name)

    return attribute, sorted([*listed, *API])
