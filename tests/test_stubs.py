"""What type checkers are told about each package is what it offers."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tool(name: str):
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STUBS = tool("stubs")


def test_stubs_are_up_to_date():
    for place, text in STUBS.stubs().items():
        assert place.read_text() == text, f"{place.relative_to(ROOT)}: run tools/stubs.py"
        assert (place.parent / "py.typed").is_file()
