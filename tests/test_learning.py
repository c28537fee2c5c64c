"""The table of `tools/learning.py` is made in several goes; no row of the page is lost."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture
def learning(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("learning")


def result(trained: float) -> dict:
    """What one run leaves."""
    shares = {"raw": 0.4, "untrained": 0.1, "trained": trained}
    return {"score": shares, "probe": shares, "effective_rank": 9, "steps": 5, "step_ms": 1.0} | {
        "seconds": 2.0
    }


def page(tmp_path: Path, learning, *lines: str) -> Path:
    path = tmp_path / "page.md"
    begin, end = learning.marks_of(0)
    path.write_text("before\n" + "\n".join([begin, *lines, end]) + "\nafter\n")
    return path


def test_rows_of_other_recipes_stay_and_rows_made_anew_take_their_place(tmp_path, learning):
    head = learning.header(probe=True)
    stands = [learning.row(name, [result(0.5)], probe=True) for name in ("byol", "mae")]
    path = page(tmp_path, learning, *head, *stands)
    new = [learning.row(n, [result(0.6), result(0.7)], probe=True) for n in ("byol", "dino")]
    marks = learning.marks_of(0)
    learning.write_into(path, "\n".join(learning.merged(path, [*head, *new], marks)), marks)
    table = path.read_text().splitlines()[3:-3]
    assert table == [*head, new[0], stands[1], new[1]]
    assert "| byol | 2 | 40.0 ± 0.0 | 10.0 ± 0.0 | 65.0 ± 7.1 | 25.0 ± 7.1 |" in table[2]


def test_an_empty_table_takes_the_new_rows(tmp_path, learning):
    lines = [*learning.header(probe=False), learning.row("byol", [result(0.5)], probe=False)]
    assert learning.merged(page(tmp_path, learning), lines, learning.marks_of(0)) == lines


def test_a_table_with_other_columns_is_not_mixed(tmp_path, learning):
    row = learning.row("byol", [result(0.5)], probe=True)
    path = page(tmp_path, learning, *learning.header(probe=True), row)
    lines = [*learning.header(probe=False), learning.row("mae", [result(0.5)], probe=False)]
    with pytest.raises(SystemExit, match="other columns"):
        learning.merged(path, lines, learning.marks_of(0))


def test_samples_of_another_seed_have_a_table_of_their_own(tmp_path, learning):
    lines = [*learning.header(probe=False), learning.row("byol", [result(0.5)], probe=False)]
    path, (begin, end) = page(tmp_path, learning, *lines), learning.marks_of(1)
    path.write_text(f"{path.read_text()}{begin}\n{end}\n")
    assert learning.merged(path, lines[:2], (begin, end)) == lines[:2]
    learning.write_into(path, "\n".join(lines), (begin, end))
    assert path.read_text().count(lines[2]) == 2


def test_a_measure_adds_its_best_rival_the_trained_encoder_and_the_gain(learning):
    score = {"rivals": {"raw": 0.1, "scratch": 0.3}, "best": "scratch", "trained": 0.45}
    runs = [result(0.5) | {"more": {"dice": score}}, result(0.5) | {"more": {"dice": score}}]
    head = learning.header(probe=False, more=["dice"])[0].split("|")
    cells = learning.row("byol", runs, probe=False, more=["dice"]).split("|")
    at = head.index(" dice rival ")
    assert head[at + 1 : at + 3] == [" dice trained ", " dice gain "]
    assert [c.strip() for c in cells[at : at + 3]] == ["30.0 ± 0.0", "45.0 ± 0.0", "15.0 ± 0.0"]
    assert len(cells) == len(head)


def test_a_run_without_the_measure_shows_a_dash(learning):
    head = learning.header(probe=True, more=["dice"])[0].split("|")
    cells = learning.row("byol", [result(0.5)], probe=True, more=["dice"]).split("|")
    assert len(cells) == len(head)
    assert cells[head.index(" dice gain ")].strip() == "-"


def test_labels_stand_side_by_side_with_raw_input_and_chance_once(learning):
    shares = {"raw": 0.4, "untrained": 0.1, "trained": 0.5}
    labels = {"speeds": {"score": shares, "probe": shares, "chance": 0.3}}
    lines = learning.label_rows("pace", [result(0.5) | {"labels": labels}] * 2, probe=True)
    head = learning.header(probe=True, labels=["speeds"])[0]
    assert head.startswith("| recipe | seeds | speeds: k-NN | speeds: linear | effective rank |")
    assert all(line.count("|") == head.count("|") for line in lines.values())
    assert lines["raw input"].startswith("| raw input |  | 40.0 ± 0.0 | 40.0 ± 0.0 |")
    assert lines["most frequent class"].startswith("| most frequent class |  | 30.0 ± 0.0 |")
    assert lines["pace"].startswith("| pace | 2 | 10.0 ± 0.0 → 50.0 ± 0.0 | 10.0 ± 0.0 → 50.0")
