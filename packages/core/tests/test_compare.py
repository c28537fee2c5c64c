"""Several runs on one page: honest conclusions, what differs, figures as files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ssl_core import api
from ssl_core.errors import UserError
from ssl_core.report.compare import conclusion, differing, render_comparison, short_names
from ssl_core.report.figures import write_figures
from ssl_core.runs.folder import Run
from ssl_core.testing.vectors import VECTORS


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("runs")
        settings = {"train.steps": 8, "train.log_every": 2, "train.batch_size": 32}
        return [
            api.pretrain(
                VECTORS,
                out=folder / name,
                settings={**settings, "optimizer.lr": lr},
                progress=False,
            )
            for name, lr in (("slow", 1e-4), ("fast", 1e-2))
        ]


def summary(score: float | None, *, data: str = "a", queries: int = 400) -> dict[str, Any]:
    return {
        "score": {"name": "knn_accuracy", "trained": score},
        "queries": queries,
        "data": {"fingerprint": data, "heldout": queries},
    }


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (summary(0.9), summary(0.7), "a is best: 90.0 % against 70.0 % of b"),
        (summary(0.71), summary(0.72), "No clear winner: b has 72.0 %"),
        (summary(0.9, queries=10), summary(0.7, queries=10), "No clear winner"),
        (summary(0.9), summary(0.7, data="b"), "different data"),
        (summary(0.9), summary(None), "Only a has a finite score"),
    ],
)
def test_conclusions_claim_no_more_than_the_records_show(
    first: dict[str, Any], second: dict[str, Any], words: str
) -> None:
    assert words in conclusion({"a": first, "b": second})


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert short_names([Path("/x/1/a"), Path("/x/2/a")]) == ["1/a", "2/a"]


def test_only_what_differs_is_listed() -> None:
    rows = differing({"a": {"x": 1, "y": 2, "description": "p"}, "b": {"x": 1, "y": 3, "z": None}})
    assert rows == [("y", {"a": "2", "b": "3"})]


def test_the_page_overlays_runs_and_names_the_difference(runs: list[Run]) -> None:
    page = render_comparison(runs)
    assert "optimizer.lr" in page
    assert "train.steps" not in page
    assert "0.0001" in page
    assert page.count('<polyline class="line"') >= 2 * 7  # two lines a chart
    assert "default-src 'none'" in page
    with pytest.raises(UserError, match="at least two"):
        render_comparison(runs[:1])


def test_an_unfinished_run_is_compared_as_far_as_it_came(runs: list[Run], tmp_path: Path) -> None:
    copy = Run(tmp_path / "part")
    copy.path.mkdir()
    for file in ("recipe.yaml", "run.json", "metrics.jsonl"):
        (copy.path / file).write_bytes((runs[0].path / file).read_bytes())
    page = render_comparison([runs[1], copy])
    assert "8 of 8" in page
    assert "unfinished" in page
    assert "Fewer than two of these runs are finished" in page


def test_figures_are_png_and_svg(runs: list[Run], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = write_figures(runs[:1], tmp_path / "one")
    names = {"loss", "health", "speed", "scores", "map"}
    assert {file.name for file in files} == {f"{n}.{k}" for n in names for k in ("png", "svg")}
    assert (tmp_path / "one" / "loss.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "one" / "loss.svg").read_text()
    assert "learning rate" in text  # text is text, not outlines
    both = write_figures(runs, tmp_path / "both")
    assert {file.stem for file in both} == names - {"map"}
    assert "slow" in (tmp_path / "both" / "loss.svg").read_text()


def test_missing_matplotlib_names_the_install_command(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'ssl-core\[figures\]'"):
        write_figures(runs, tmp_path / "none")
    assert not (tmp_path / "none").exists()
