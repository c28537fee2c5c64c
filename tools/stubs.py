"""Writes the `__init__.pyi` that tell type checkers and editors what each package offers.

    uv run python tools/stubs.py            # write them
    uv run python tools/stubs.py --check    # fail when one is out of date

The packages import their public names when they are first used, which no type checker can follow.
The stubs are made from the same tables; `ssl_core/bound.pyi` has the signatures of `ssl_core.api`
with the domain filled in, once for all domains. No module of that name is ever imported.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

from ssl_core import api
from ssl_core.surface import API

ROOT = Path(__file__).resolve().parents[1]
_BOUND = ("adapt", "build_recipe", "plan", "pretrain")
"""Functions of `ssl_core.api` whose first argument, the domain, a domain package fills in."""


def packages() -> list[str]:
    """Import names of the packages whose names are lazy."""
    roots = sorted(ROOT.glob("packages/*/src/ssl_*/__init__.py"))
    return [path.parent.name for path in roots]


def place_of(package: str) -> Path:
    """Where a package's stub lies."""
    return ROOT / "packages" / package[4:] / "src" / package / "__init__.pyi"


def stubs() -> dict[Path, str]:
    """Every stub's place and content."""
    bound = place_of("ssl_core").with_name("bound.pyi")
    return {bound: bound_functions(bound)} | {place_of(name): stub(name) for name in packages()}


def stub(package: str) -> str:
    """The content of a package's stub."""
    places = named_places(package)
    lines = [
        f"from {module} import {inside}" + (f" as {name}" if name != inside else "")
        for name, (module, inside) in places.items()
    ]
    offered = sorted(importlib.import_module(package).__all__)
    if package != "ssl_core":
        lines += [
            f"from ssl_core.{'bound' if name in _BOUND else 'api'} import {name}" for name in API
        ]
    text = "\n".join(sorted(set(lines)))
    return formatted(f"{text}\n\n__all__ = {offered}\n__version__: str\n", place_of(package))


def named_places(package: str) -> dict[str, tuple[str, str]]:
    """Public name -> (module, attribute), from the tables in the package's `__init__`."""
    function = importlib.import_module(package).__getattr__
    cells = inspect.getclosurevars(function).nonlocals
    if "own" in cells:  # of a domain: `surface` wraps `lazy`
        cells = inspect.getclosurevars(cells["own"]).nonlocals
    split = {name: place.partition(":") for name, place in cells["names"].items()}
    return {name: (module, inside) for name, (module, _, inside) in split.items()}


def bound_functions(place: Path) -> str:
    """The functions of `ssl_core.api` without their domain, and the imports their types need."""
    tree = ast.parse(inspect.getsource(api))
    written, used = [], set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in _BOUND:
            node.args.args = node.args.args[1:]
            node.body = [ast.Expr(ast.Constant(f"See `ssl_core.api.{node.name}`."))]
            written.append(ast.unparse(node))
            used |= {n.id for n in ast.walk(node.args) if isinstance(n, ast.Name)}
            used |= {n.id for n in ast.walk(node.returns or node) if isinstance(n, ast.Name)}
    imports = [
        f"from {node.module} import {alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in used
    ]
    if any("os." in text for text in written):
        imports.append("import os")
    return formatted("\n".join([*imports, "", *written]), place)


def formatted(text: str, place: Path) -> str:
    """The text as `ruff` sorts and formats it."""
    for command in (["check", "--fix", "--quiet", "--exit-zero"], ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(place), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        text = done.stdout
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is written")
    check = parser.parse_args().check
    stale = []
    for place, text in stubs().items():
        if not place.is_file() or place.read_text() != text:
            stale.append(str(place.relative_to(ROOT)))
            if not check:
                place.write_text(text)
    if check and stale:
        print("out of date: " + ", ".join(stale))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
