"""README and docs name commands, options, recipes and functions that exist."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load_tool():
    spec = importlib.util.spec_from_file_location("tool_snippets", ROOT / "tools" / "snippets.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()


def test_every_snippet_says_what_exists():
    found = [
        problem
        for page in TOOL.pages()
        for snippet in TOOL.snippets(page)
        for problem in TOOL.problems(snippet)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ssl-graph pretrian", "pretrain"),
        ("ssl-graph pretrain --metod byol", "--metod"),
        ("uv run ssl-graph pretrain --method simclrr", "simclr"),
        ("cd x && ssl-graph pretrain --recipe grase", "grace"),
        ("torchrun -m ssl_graph pretrain \\\n  --set optimizer.lrr=1", "optimizer.lr"),
        ("ssl-graph embed RUN --out x.npy", "--data"),
        ("ssl-lab run x", "--out"),
    ],
)
def test_a_wrong_command_is_found(line, message):
    (problem,) = TOOL.shell_problems(line)
    assert message in problem


@pytest.mark.parametrize(
    "line", ["ssl-graph pretrain --data DIR --method my_module:Mine", "pip install ssl-graph", ""]
)
def test_a_right_command_is_not(line):
    assert list(TOOL.shell_problems(line)) == []


def test_a_wrong_import_is_found():
    assert list(TOOL.python_problems("import ssl_core\nssl_core.fitt(1)")) == [
        "ssl_core has no fitt"
    ]
    assert list(TOOL.python_problems("from ssl_core.errors import UserEror")) == [
        "ssl_core.errors has no UserEror"
    ]
    assert next(iter(TOOL.python_problems("a b"))).startswith("no Python")


@pytest.mark.parametrize("page", ["own.md", "concepts/views.md", "concepts/methods.md"])
def test_a_page_of_python_runs_from_top_to_bottom(page):
    blocks = [b for b in TOOL.snippets(ROOT / "docs" / page) if b.language == "python"]
    assert blocks
    space: dict = {}
    for block in blocks:
        exec(compile(block.code, f"{page}:{block.line}", "exec"), space)
    assert page != "own.md" or space["result"].steps == 20
