"""The report: well-formed, alone in the world, honest about what it was given."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ssl_core import api
from ssl_core.files import read_json, write_json
from ssl_core.report import render
from ssl_core.report.charts import bars, line_chart, number, scatter, thinned, ticks
from ssl_core.runs.folder import Run
from ssl_core.testing.vectors import VECTORS

VOID = {"meta", "br", "line", "rect", "circle", "polyline"}


class Checker(HTMLParser):
    """Every tag that opens is closed, in order; collects attributes that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "srcset"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = tmp_path_factory.mktemp("runs") / "run"
        settings = {"train.steps": 30, "train.log_every": 5, "description": "<b>&"}
        return api.pretrain(VECTORS, out=folder, settings=settings, progress=False)


def test_report_needs_nothing_else(run: Run) -> None:
    page = run.report_file.read_text()
    checker = check(page)
    assert checker.loads == []
    assert not checker.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://", page)
    assert len(page) < 300_000


def test_report_shows_the_outcome(run: Run) -> None:
    page = run.report_file.read_text()
    summary = run.summary
    assert f"{100 * summary['knn']['trained']:.1f} %" in page
    assert summary["versions"]["torch"] in page
    assert "ssl-vectors pretrain --recipe recipe.yaml" in page
    assert "Effective rank" in page
    assert page.count("<circle") == sum(len(m["points"]) for m in summary["maps"].values())
    assert "&lt;b&gt;&amp;" in page  # the description, escaped
    assert "prefers-color-scheme: dark" in page


def test_report_survives_missing_numbers(run: Run, tmp_path: Path) -> None:
    """A diverged run has nulls where numbers should be, and perhaps no log at all."""
    copy = Run(tmp_path)
    for file in (run.recipe_file, run.facts_file):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    summary = read_json(run.summary_file)
    summary["score"]["trained"] = summary["effective_rank"] = None
    summary["rivals"]["trained"]["uniformity"] = None
    summary["maps"] = {"trained": {"points": [], "labels": []}}
    write_json(copy.summary_file, summary)
    page = render(copy)
    check(page)
    assert "n/a" in page


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 1000, [0, 200, 400, 600, 800, 1000]),
        (-0.003, 0.002, [-0.003, -0.002, -0.001, 0, 0.001, 0.002]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_tick_labels_are_short() -> None:
    values = (0, 0.001, 0.00002, 12.5, 9999, 30_000, 2e6)
    assert [number(v) for v in values] == ["0", "0.001", "2e-05", "12.5", "9999", "30k", "2M"]


def test_thinning_keeps_means_and_drops_what_is_not_finite() -> None:
    points = [(float(i), float(i)) for i in range(1000)]
    few = thinned(points, most=100)
    assert len(few) == 100
    assert few[0] == (4.5, 4.5)
    assert thinned([(0.0, float("nan")), (1.0, 2.0)]) == [(1.0, 2.0)]


def test_charts_of_nothing_are_nothing() -> None:
    assert line_chart("x", {"a": [], "b": [(0.0, float("inf"))]}) == ""
    assert scatter("x", [], [], []) == ""
    check(line_chart("one <point>", {"a": [(1.0, 2.0)]}))
    assert 'style="width:0.00%"' in bars([("x", float("nan"), "n/a")], full=1.0, mark=0.5)
