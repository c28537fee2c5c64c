"""Lists every method, its paper and the domains that offer it, in `docs/methods.md`.

    uv run python tools/catalogue.py            # write the list between the page's marks
    uv run python tools/catalogue.py --check    # fail when the page is out of date

Titles are the first sentence of each method's module; domains are asked what they declare.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from ssl_core.domain import Domain
from ssl_core.files import atomic_write
from ssl_core.runs.config import recipe_names

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- catalogue -->", "<!-- end of catalogue -->"


def domains() -> dict[str, Domain]:
    """Every domain of the workspace, by name."""
    names = [path.parent.name[4:] for path in ROOT.glob("packages/*/src/ssl_*/domain.py")]
    return {
        name: getattr(importlib.import_module(f"ssl_{name}"), name.upper())
        for name in sorted(names)
        if name != "core"
    }


def title(place: str) -> str:
    """The first sentence of the module behind "module:attribute", without importing it.

    A function is another method in the same module and speaks for itself.
    """
    module, _, attribute = place.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == attribute]
    text = ast.get_docstring(functions[0] if functions else tree) or ""
    return " ".join(text.split("\n\n")[0].split())


def owner(recipe: str, methods: Iterable[str]) -> str | None:
    """The method a recipe such as `moco_v3_imagenet` is of: the longest name it starts with."""
    fitting = [method for method in methods if recipe.startswith(f"{method}_")]
    return max(fitting, key=len, default=None)


def rows(found: dict[str, Domain]) -> list[str]:
    """One line a method: name, what it is, where it runs, its published recipes."""
    places: dict[str, str] = {}
    offered: dict[str, list[str]] = {}
    published: dict[str, list[str]] = {}
    for name, domain in found.items():
        recipes = recipe_names(domain)
        for method in domain.methods:
            places.setdefault(method, domain.methods[method])
            offered.setdefault(method, []).append(name)
            published.setdefault(method, []).extend(
                f"`{recipe}`"
                for recipe in recipes
                if recipe not in domain.methods and owner(recipe, domain.methods) == method
            )
    lines = ["| method | what it is | domains | published recipes |", "|---|---|---|---|"]
    for method in sorted(places):
        recipes = ", ".join(dict.fromkeys(published[method])) or "-"
        lines.append(
            f"| `{method}` | {title(places[method])} | {', '.join(offered[method])} | {recipes} |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is written")
    check = parser.parse_args().check
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{PAGE}: put the marks {BEGIN} and {END} where the list shall stand")
    new = "\n".join([f"{before}{BEGIN}", "", *rows(domains()), "", f"{END}{after}"])
    if check:
        return 0 if new == text else 1
    atomic_write(PAGE, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
