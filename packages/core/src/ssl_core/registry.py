"""Names of a domain's encoders, views and methods, imported only when one is built."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ssl_core.errors import UserError, unknown

_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_place(name: str) -> bool:
    """Whether a name says where something of the user's own is: "module:attribute".

    The module must be one that Python finds: an installed package, or a file on `PYTHONPATH`.
    """
    if not _PLACE.fullmatch(name):
        return False
    try:
        return importlib.util.find_spec(name.partition(":")[0]) is not None
    except ModuleNotFoundError:  # of a parent package
        return False


class Registry(Mapping[str, str]):
    """Name -> "module:attribute". Walking it imports nothing; `build` imports one module.

    `load` and `build` also take such a place itself, so that nobody has to register what is his
    own.
    """

    def __init__(self, what: str, entries: Mapping[str, str]) -> None:
        self.what = what
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> str:
        if name not in self._entries:
            raise unknown(self.what, name, self._entries)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, name: str) -> Callable[..., Any]:
        """The class or function behind a name, or at a place of one's own."""
        own = name not in self and is_place(name)
        module, _, attribute = (name if own else self[name]).partition(":")
        factory: Callable[..., Any] | None = getattr(
            importlib.import_module(module), attribute, None
        )
        if not callable(factory):
            # transformers:vit is a natural way to ask for a network of a library.
            hint = "" if "." in module else f"; a library's own are written {module}/{attribute}"
            raise UserError(f"{self.what}: {module} has no class or function {attribute!r}{hint}")
        return factory

    def options(self, name: str) -> dict[str, str]:
        """What `build` takes as `options`, with defaults as Python writes them; "" where it must
        be given."""
        parameters = inspect.signature(self.load(name)).parameters.values()
        return {
            p.name: "" if p.default is p.empty else repr(p.default)
            for p in parameters
            if p.kind is p.KEYWORD_ONLY
        }

    def build(self, name: str, *args: Any, options: Mapping[str, Any]) -> Any:
        """Calls the factory with keyword `options`, each checked against its signature."""
        factory = self.load(name)
        check_options(f"{self.what} {name}", factory, options, positional=len(args))
        try:
            return factory(*args, **options)
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.what} {name}: {error}") from error


def check_options(
    what: str, factory: Callable[..., Any], options: Mapping[str, Any], *, positional: int
) -> None:
    """Raises `UserError` for an option that `factory` does not take by keyword, or lacks.

    Also for anything but a bool where the signature asks for one: any word would count as true.
    """
    parameters = list(inspect.signature(factory).parameters.values())[positional:]
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name not in options:
            raise UserError(f"{what} needs the option {p.name!r}")
        # Only bools: "auto" may stand for a number, and other kinds fail where they are used.
        if p.annotation in (bool, "bool") and not isinstance(options.get(p.name, True), bool):
            raise UserError(
                f"{what} option {p.name} must be true or false, got {options[p.name]!r}"
            )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    allowed = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in options:
        if name not in allowed:
            raise unknown(f"{what} option", name, allowed)
