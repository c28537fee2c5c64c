"""What type checkers are told about each package is what it offers."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tool(name: str):
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STUBS = tool("stubs")


@pytest.mark.parametrize("package", STUBS.packages())
def test_stubs_are_up_to_date(package):
    place = STUBS.place_of(package)
    assert place.read_text() == STUBS.stub(package), "run tools/stubs.py"
    assert (place.parent / "py.typed").is_file()
