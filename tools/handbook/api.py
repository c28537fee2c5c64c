"""The Python reference: every public name of every package, from signatures and docstrings."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from handbook import prose, syntax
from handbook.syntax import Item, Option
from stubs import API, named_places

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {
    "objectives": "Losses: tensors in, scalar out",
    "networks": "Heads, teachers, transformers, masks",
    "methods": "The contract of a method, and every method's class",
    "data": "Sources, the stream of samples, the loader",
    "ops": "Keyed operations on batches",
    "evaluation": "k-NN, probes, retrieval, geometry",
    "engine": "The training loop and what stands below it",
    "runs": "From a recipe to a finished folder",
    "report": "Pages, plots, maps",
    "testing": "Contract tests for a domain of your own",
    "verification": "Do replicas train as one process?",
}
WIDE = 76  # a longer value of a constant is left out


def pages() -> dict[str, str]:
    """Place below the site -> Markdown."""
    found = {f"reference/{room}.md": room_page(room) for room in ROOMS}
    found["reference/core.md"] = core_page()
    for package in domain_packages():
        found[f"reference/{package}.md"] = domain_page(package)
    return found


def domain_packages() -> list[str]:
    """Import names of the packages beside the core."""
    names = [path.parent.name for path in ROOT.glob("packages/*/src/ssl_*/domain.py")]
    return sorted(name for name in names if name != "ssl_core")


def modules(room: str) -> list[str]:
    """Modules of a room of the core that have something public, the room itself first."""
    folder = ROOT / "packages" / "core" / "src" / "ssl_core" / room
    files = sorted(folder.rglob("*.py"), key=lambda path: (path.stem != "__init__", path))
    return [_dotted(path) for path in files if not path.stem.startswith("__main__")]


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT / "packages" / "core" / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_page(room: str) -> str:
    """Everything public in one room of the core, module by module."""
    head = [f"# ssl_core.{room}", prose.escape(ROOMS[room]) + "."]
    return "\n\n".join([*head, *_sections(modules(room))]) + "\n"


def core_page() -> str:
    """What `import ssl_core` offers, and the modules that stand alone."""
    package = ROOT / "packages" / "core" / "src" / "ssl_core"
    singles = [f"ssl_core.{path.stem}" for path in sorted(package.glob("[a-z]*.py"))]
    head = ["# ssl_core", "What `import ssl_core` offers:", _table(public("ssl_core"))]
    return "\n\n".join([*head, *_sections(singles)]) + "\n"


def domain_page(package: str) -> str:
    """What a domain package offers, then its views and encoders by name."""
    own = [item for name, item in public(package).items() if item.module != "ssl_core.api"]
    bound = [item for item in public(package).values() if item.module == "ssl_core.api"]
    text = ast.get_docstring(syntax.tree_of(package)) or ""
    parts = [f"# {package}", prose.markdown(text), "## Training and using"]
    parts += [entry(_bound(item)) for item in bound]
    parts += ["## Of its own", *(entry(item) for item in own)]
    domain = getattr(importlib.import_module(package), package[4:].upper())
    parts += ["## View policies", *_registered(dict(domain.views))]
    parts += ["## Encoders", *_registered(dict(domain.encoders))]
    return "\n\n".join(parts) + "\n"


def _bound(item: Item) -> Item:
    """A function of `ssl_core.api` as a domain package offers it: the domain is filled in."""
    return replace(item, signature=re.sub(r"\bdomain: Domain \| str,\s+", "", item.signature))


def _registered(places: dict[str, str]) -> Iterator[str]:
    """A table of registered names, then each factory that stands behind them, once."""
    lines, factories = ["| name | what it is | with |", "|---|---|---|"], {}
    for name in sorted(places):
        item, given, about = factory_of(places[name])
        factories[(item.module, item.name)] = item
        first = prose.cell((about or item.text).split("\n\n")[0])
        lines.append(f"| {prose.code(name)} | {first} | {prose.code(given)} |")
    yield "\n".join(lines)
    yield from (entry(item) for item in factories.values())


def factory_of(place: str) -> tuple[Item, str, str]:
    """What stands behind a registered name, the options it fixes, what is said of it alone.

    Names may be made of one factory: by `partial(vit, dim=192)`, or by the module's `__getattr__`.
    """
    module = place.partition(":")[0]
    try:
        item = syntax.find(place)
    except LookupError:
        return syntax.find(f"{module}:{syntax.makers(module)[0]}"), "", ""
    if item.kind != "constant":
        return item, "", ""
    call = ast.parse(item.signature.partition(" = ")[2], mode="eval").body
    if not isinstance(call, ast.Call):
        raise LookupError(f"{place}: neither a function, a class nor a partial")
    given = ", ".join(ast.unparse(part) for part in [*call.args[1:], *call.keywords])
    return syntax.find(f"{item.module}:{ast.unparse(call.args[0])}"), given, item.text


def public(package: str) -> dict[str, Item]:
    """The public names of a package and what stands behind each."""
    places = {name: ":".join(place) for name, place in named_places(package).items()}
    if package != "ssl_core":
        places |= {name: f"ssl_core.api:{name}" for name in API}
    return {name: syntax.find(place) for name, place in sorted(places.items())}


def _sections(names: Iterable[str]) -> Iterator[str]:
    """A section for each module that defines something public."""
    for name in names:
        found = list(syntax.items(name))
        text = ast.get_docstring(syntax.tree_of(name)) or ""
        if not found and not text:
            continue
        yield f"## {name}"
        if text:
            yield prose.markdown(text, equations=".methods." in name)
        yield from (entry(item) for item in found)


def entry(item: Item, *, level: int = 3, title: str | None = None) -> str:
    """One item: heading, signature, what it says, its fields and methods."""
    parts = [f"{'#' * level} {title or prose.code(item.name)}"]
    long = item.kind == "constant" and len(item.signature) > WIDE
    shown = f"{item.name} = ..." if long else item.signature
    parts.append(f"```python\n{shown}\n```")
    if item.text:
        parts.append(prose.markdown(item.text))
    described = [option for option in item.fields if option.text]
    if described:
        parts.append(_fields(described))
    parts += [_member(member) for member in item.members]
    return "\n\n".join(parts)


def _member(item: Item) -> str:
    """A method of a class, set in."""
    body = f"```python\n{item.signature}\n```\n\n{prose.markdown(item.text)}"
    return '<div class="member" markdown>\n\n' + body + "\n\n</div>"


def _fields(options: Iterable[Option]) -> str:
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for option in options:
        lines.append(
            f"| {prose.code(option.name)} | {prose.code(option.type)} "
            f"| {prose.code(option.default)} | {prose.cell(option.text)} |"
        )
    return "\n".join(lines)


def _table(named: dict[str, Item]) -> str:
    """Names with their first sentence, linked to where they are described."""
    lines = ["| name | |", "|---|---|"]
    for name, item in named.items():
        first = prose.cell(item.text.split("\n\n")[0])
        lines.append(f"| {prose.code(name)} | {first} ({prose.code(item.module)}) |")
    return "\n".join(lines)
