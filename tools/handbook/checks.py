"""Which tests hold a method: those that name its class or an objective it computes."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Functions = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Check:
    """One test: the file it stands in, its name, every name its text reaches."""

    file: str
    name: str
    reached: frozenset[str]

    @property
    def words(self) -> str:
        """The test's name as a sentence."""
        return self.name.removeprefix("test_").replace("_", " ")


def checks_of(names: set[str]) -> list[Check]:
    """Tests that reach one of these names, in the order of files."""
    files = [file for file in test_files() if any(name in _text(file) for name in names)]
    return [check for file in files for check in checks_in(file) if check.reached & names]


@functools.cache
def test_files() -> tuple[Path, ...]:
    """Every test file of the workspace."""
    return tuple(sorted([*ROOT.glob("packages/*/tests/test_*.py"), *ROOT.glob("tests/test_*.py")]))


@functools.cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@functools.cache
def checks_in(file: Path) -> tuple[Check, ...]:
    """The tests of a file, each with the names that it and what it uses of the file reach."""
    tree = ast.parse(_text(file))
    local = {name: _names(node) for node in tree.body for name in _defined(node)}
    tests = [node for node in ast.walk(tree) if isinstance(node, Functions)]
    return tuple(
        Check(str(file.relative_to(ROOT)), node.name, frozenset(_reached(_names(node), local)))
        for node in tests
        if node.name.startswith("test_")
    )


def _defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module defines."""
    if isinstance(node, (*Functions.__args__, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _reached(names: set[str], local: dict[str, set[str]]) -> set[str]:
    """Names, and what helpers, fixtures and tables among them name in turn."""
    found, waiting = set(names), list(names)
    while waiting:
        name = waiting.pop()
        new = set() if name.startswith("test_") else local.get(name, set()) - found
        found |= new
        waiting += new
    return found


def _names(node: ast.AST) -> set[str]:
    """Every name, attribute and argument in a piece of code."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            found.add(part.id)
        elif isinstance(part, ast.Attribute):
            found.add(part.attr)
        elif isinstance(part, ast.arg):
            found.add(part.arg)
    return found
