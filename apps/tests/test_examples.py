"""The example scripts run from files to scikit-learn, here with few samples and one step."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
SAYS = {
    "audio": "moments as",
    "graph": "accuracy over folds",
    "medical": "accuracy over folds",
    "text": "a question about:",
    "video": "most like",
    "vision": "groups against classes",
}

LONGER = ("audio", "medical", "video", "vision")
"""Their samples and networks take several seconds even for one step."""


def test_every_domain_has_an_example():
    packages = FOLDER.parents[1] / "packages"
    domains = {path.name for path in packages.iterdir()} - {"core"}
    assert {path.stem for path in FOLDER.glob("*.py")} == domains == set(SAYS)


@pytest.mark.parametrize(
    "domain",
    [
        "graph",
        "text",
        *(pytest.param(name, marks=pytest.mark.slow) for name in LONGER),
    ],
)
def test_an_example_runs(domain, tmp_path, monkeypatch, capsys):
    words = [f"{domain}.py", "--steps", "1", "--count", "48", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(FOLDER / f"{domain}.py"), run_name="__main__")
    assert (tmp_path / "run" / "report.html").is_file()
    assert SAYS[domain] in capsys.readouterr().out
