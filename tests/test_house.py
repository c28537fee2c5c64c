"""The house rules, enforced: floors, no cycles, small files, cheap imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {path.name: path / "src" / f"ssl_{path.name}" for path in (ROOT / "packages").iterdir()}

# Floors of ssl_core, lowest first; a module imports only from its own floor or below.
FLOORS = [
    {"errors", "files", "tensors", "environment", "rng", "schedules", "distributed", "compiling"},
    {"batch", "views", "objectives", "ops"},
    {"encoder", "networks"},
    {"methods"},
    {"recipe", "registry", "data"},
    {"evaluation"},
    {"engine"},
    {"domain"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
TOP = len(FLOORS)  # api, command, run, report, testing: they join everything


def modules() -> dict[str, Path]:
    """Every module of every package by its dotted name."""
    found = {}
    for root in PACKAGES.values():
        for path in root.rglob("*.py"):
            parts = path.relative_to(root.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path, *, top_level: bool) -> set[str]:
    """Modules of ours that a file imports; with `top_level` only those imported on loading it."""
    tree = ast.parse(path.read_text())
    body = _loaded(tree.body) if top_level else ast.walk(tree)
    names = set()
    for node in body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {name for name in names if name in MODULES}


def _loaded(body):
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from _loaded(node.body)


def test_core_knows_no_domain_and_domains_do_not_know_each_other():
    for name, path in MODULES.items():
        own = name.split(".")[0]
        for other in imports(path, top_level=False):
            package = other.split(".")[0]
            assert package in (own, "ssl_core"), f"{name} imports {other}"


def test_arrows_in_core_point_down():
    for name, path in MODULES.items():
        if not name.startswith("ssl_core."):
            continue
        room = name.split(".")[1]
        for other in imports(path, top_level=True):
            parts = other.split(".")
            if len(parts) < 2 or parts[1] == room:
                continue
            here, there = FLOOR.get(room, TOP), FLOOR.get(parts[1], TOP)
            assert there <= here, f"{name} (floor {here}) imports {other} (floor {there})"


def test_no_import_cycles():
    graph = {name: imports(path, top_level=True) - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "cycle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for other in graph[name]:
            # `from package import module` names the package too; its __init__ is loaded anyway.
            if not name.startswith(f"{other}."):
                visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_files_are_short():
    places = [ROOT / "tools", ROOT / "tests", ROOT / "apps", ROOT / "packages"]
    for path in (file for place in places for file in place.rglob("*.py")):
        lines = len(path.read_text().splitlines())
        assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines"


@pytest.mark.parametrize("method", ["simclr", "mae"])
def test_a_method_is_one_short_file(method):
    path = PACKAGES["core"] / "methods" / f"{method}.py"
    assert len(path.read_text().splitlines()) <= 80


def _loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


HEAVY = {
    "transformers",
    "sklearn",
    "torch_geometric",
    "monai",
    "torchvision",
    "pyarrow",
    "datasets",
}


def test_core_imports_stay_light():
    names = [name for name in MODULES if name.startswith("ssl_core.") and "testing" not in name]
    statement = "; ".join(f"import {name}" for name in sorted(names) if "__main__" not in name)
    assert not _loaded_after(statement) & HEAVY


def test_help_loads_no_torch():
    for package in ("vision", "graph", "text", "video", "audio", "medical"):
        loaded = _loaded_after(f"import ssl_{package}.__main__")
        assert not loaded & (HEAVY | {"torch", "numpy", "timm"}), package
