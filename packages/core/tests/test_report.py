"""The report: well-formed, alone in the world, honest about what it was given."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ssl_core import api
from ssl_core.files import read_json, write_json
from ssl_core.report import render
from ssl_core.report.atlas import _dots, examples, scaled
from ssl_core.report.charts import bars, line_chart, number, thinned, ticks
from ssl_core.report.curves import split_parts
from ssl_core.report.document import document, embedded, section
from ssl_core.report.dots import dot_chart
from ssl_core.report.page import marked
from ssl_core.runs.folder import Run
from ssl_core.testing.vectors import VECTORS

SCRIPT = r"<script>(.*?)</script>"
VOID = {"meta", "br", "line", "rect", "circle", "polyline", "img"}


class Checker(HTMLParser):
    """Every tag that opens is closed, in order; collects attributes that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [
            f"{tag} {name}={value}"
            for name, value in attrs
            if name in {"src", "href", "srcset"} and not (value or "").startswith(("#", "data:"))
        ]
        self.attributes |= {name for name, _ in attrs}
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
    assert not checker.tags & {"link", "iframe", "object"}
    assert not re.search(r"url\(|@import|https?://", page)
    assert len(page) < 300_000


def test_the_policy_allows_its_own_style_and_scripts_and_nothing_else(run: Run) -> None:
    """Hashes of what stands there, and no attribute that the policy would refuse."""
    page = run.report_file.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    for kind, pattern in (("style-src", r"<style>(.*?)</style>"), ("script-src", SCRIPT)):
        found = re.findall(pattern, page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(x.encode()).digest()).decode() for x in found]
        assert rules[kind] == " ".join(f"'sha256-{x}'" for x in hashes), kind
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    unsafe = {name for name in check(page).attributes if name.startswith("on") or name == "style"}
    assert unsafe == set()


def test_report_shows_the_outcome(run: Run) -> None:
    page = run.report_file.read_text()
    summary = run.summary
    assert f"{100 * summary['knn']['trained']:.1f} %" in page
    assert summary["versions"]["torch"] in page
    assert "ssl-vectors pretrain --recipe recipe.yaml" in page
    assert "Effective rank" in page
    gallery = run.gallery()
    assert gallery is not None
    assert page.count("<circle") == len(gallery["keys"]) == summary["queries"]
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
    write_json(copy.summary_file, summary)
    page = render(copy)
    check(page)
    assert "n/a" in page
    assert 'id="map-data"' not in page


def test_an_unfinished_run_is_shown_as_far_as_it_came(run: Run, tmp_path: Path) -> None:
    copy = Run(tmp_path)
    copy.recipe_file.write_bytes(run.recipe_file.read_bytes())
    assert "first log point" in render(copy)
    lines = run.metrics_file.read_text().splitlines()[:3]
    copy.metrics_file.write_text("\n".join(lines))
    copy.facts_file.write_bytes(run.facts_file.read_bytes())
    page = render(copy)
    check(page)
    assert "Step 15 of 30, healthy." in page
    assert f"resume {tmp_path}" in page
    assert 'id="scores"' not in page


def test_the_gallery_knows_places_neighbours_and_clusters(run: Run) -> None:
    gallery = run.gallery()
    assert gallery is not None
    count = len(gallery["keys"])
    assert len(set(gallery["keys"])) == count
    assert {len(gallery[name]) for name in ("labels", "clusters", "near")} == {count}
    assert {"trained, PCA", "untrained, PCA"} <= set(gallery["places"])
    assert all(len(places) == count for places in gallery["places"].values())
    assert all(row not in near and len(set(near)) == 6 for row, near in enumerate(gallery["near"]))
    # The classes of this data are well apart: neighbours share them, far above chance.
    labels = gallery["labels"]
    same = [labels[i] == labels[j] for i, near in enumerate(gallery["near"]) for j in near]
    assert sum(same) / len(same) > 0.5


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--", "&amp;\u2028"])
def test_no_text_leaves_the_embedded_data(text: str) -> None:
    holder = embedded("x", {"keys": [text]})
    inside = re.fullmatch(r'<script type="application/json" id="x">(.*)</script>', holder)
    assert inside is not None
    assert not set("<>&\u2028") & set(inside[1])
    assert json.loads(inside[1]) == {"keys": [text]}


def test_a_page_escapes_its_title_and_marks_sections_by_content() -> None:
    page = document("<b>", [section("a", "<i>", "one")])
    check(page)
    assert "<b>" not in page
    assert "&lt;i&gt;" in page
    assert "script-src 'none'" in page
    assert section("a", "t", "") == ""
    assert section("a", "t", "one") == section("a", "t", "one") != section("a", "t", "two")
    assert "connect-src 'self'" in document("x", [], version="7")


def test_parts_end_where_they_sum_to_the_loss() -> None:
    def log(**values: float) -> list[dict[str, float]]:
        return [{"step": 1, "steps": 1, **values, "grad_norm": 1.0}]

    assert split_parts(log(loss=3.0, a=1.0, b=2.0, accuracy=0.5)) == (
        ["loss", "a", "b"],
        ["accuracy"],
    )
    assert split_parts(log(loss=3.0, only=3.0, accuracy=0.5)) == (["loss"], ["accuracy"])
    assert split_parts(log(loss=3.0, a=1.0)) == (["loss", "a"], [])
    assert split_parts([]) == ([], [])


def test_the_map_is_filled_and_examples_take_turns_over_classes() -> None:
    assert scaled([[0, 0], [1, 2], [2, 4]]) == [[14, 426], [320, 220], [626, 14]]
    assert scaled([[5, 5], [5, 5]]) == [[320, 220], [320, 220]]
    chosen = examples([0] * 50 + [1] * 50 + [2] * 4, count=6)
    assert [row // 50 for row in chosen] == [0, 1, 2, 0, 1, 2]
    assert examples([-1, -1], count=6) == [0, 1]
    assert examples([]) == []


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
    one = line_chart("one <point>", {"a": [(1.0, 2.0)]})
    check(one)
    assert "<circle" in one
    assert 'width="0.00%"' in bars([("x", float("nan"), "n/a")], full=1.0, mark=0.5)


def test_after_ten_series_dashes_tell_colours_apart() -> None:
    many = {f"s{i}": [(0.0, float(i)), (1.0, float(i))] for i in range(21)}
    page = line_chart("many", many)
    check(page)
    keys = re.findall(r'<g class="([^"]+)">', page)
    assert len(set(keys)) == 21
    assert keys[10] == "c0 d1"
    assert re.findall(r'<span class="([^"]+)"><svg class="key"', page) == keys


def test_whiskers_and_a_logarithmic_axis_are_marked_at_the_points() -> None:
    line = [(1.0, 10.0), (10.0, 20.0), (100.0, 30.0)]
    page = line_chart("x", {"a": line}, log=True, spread={"a": [(10.0, 15.0, 25.0)]})
    check(page)
    assert page.count("<circle") == 3
    assert page.count('class="dot"') == 1
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', page)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    labels = re.findall(r'text-anchor="middle">([^<]+)<', page)
    assert labels == ["1", "10", "100"]


def test_points_of_the_second_ten_groups_are_rings() -> None:
    page = _dots([(0, 0)] * 4, [-1, 3, 13, 23])
    assert re.findall(r'class="([^"]+)"', page) == ["none", "c3", "c3 ring", "c3"]


def test_dots_lie_on_one_scale() -> None:
    rows = [
        ("first", {"a": (10.0, 5.0, 15.0), "b": (20.0, 20.0, 20.0)}),
        ("<x>", {"b": (30.0,) * 3}),
    ]
    page = dot_chart("title", rows)
    check(page)
    assert "&lt;x&gt;" in page
    first, second, third = (float(x) for x in re.findall(r'<circle cx="([\d.]+)"', page))
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert dot_chart("nothing", []) == ""


def test_marks_of_a_text_become_elements_and_nothing_else_does() -> None:
    assert marked("a ⟨b⟩ <i> ⟨c|d & e⟩ f|g") == (
        "a <mark>b</mark> &lt;i&gt; <del>c</del> <ins>d &amp; e</ins> f|g"
    )
