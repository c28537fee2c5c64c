"""Experiments: the grid, resuming, failures that cost one cell, the numbers on the page."""

import dataclasses

import pytest

from ssl_core.errors import UserError
from ssl_core.files import read_json, write_json
from ssl_lab.cell import RESULT, read_cell, recipe_of
from ssl_lab.experiment import cells, load, parse, shipped
from ssl_lab.page import render, write_page
from ssl_lab.results import (
    Stat,
    collect,
    failures,
    flattened,
    gain,
    grouped,
    names_of,
    percent,
    ranks,
    stat,
    write_parquet,
)
from ssl_lab.running import check, folder_of, missing, run

SMALL = """
title: Small
question: Does it run?
grid:
  domains: [graph]
  recipes: [default]
  seeds: [0]
  variants: {low: [optimizer.lr=1e-4], high: [optimizer.lr=1e-2]}
steps: 3
label_fractions: [0.2, 1.0]
"""


def test_shipped_experiments_name_what_exists():
    for name in shipped():
        check(load(name))


def test_the_grid_is_every_combination_under_names_of_their_own():
    experiment = parse(SMALL.replace("seeds: [0]", "seeds: [0, 1]"), "test")
    found = cells(experiment)
    assert [(c.variant, c.seed) for c in found] == [
        ("low", 0),
        ("high", 0),
        ("low", 1),
        ("high", 1),
    ]
    assert len({cell.name for cell in found}) == 4
    assert found[0].name != dataclasses.replace(found[0], steps=4).name


def test_settings_of_a_domain_lie_below_those_of_a_variant():
    text = SMALL.replace("steps: 3", "settings: {graph: [optimizer.lr=1, data.limit=50]}")
    low, high = cells(parse(text, "test"))
    assert low.settings == ("optimizer.lr=1", "data.limit=50", "optimizer.lr=1e-4")
    assert [recipe_of(cell).optimizer.lr for cell in (low, high)] == [1e-4, 1e-2]
    assert recipe_of(low).data.limit == 50


def test_a_cell_survives_json(tmp_path):
    cell = cells(parse(SMALL, "test"))[0]
    write_json(tmp_path / "cell.json", dataclasses.asdict(cell))
    assert read_cell(read_json(tmp_path / "cell.json")) == cell


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("recipes: [default]", "recipes: [defualt]", "defualt"),
        ("domains: [graph]", "domains: [smell]", "needs the package ssl-smell"),
        ("optimizer.lr=1e-4", "optimizer.lrr=1e-4", "optimizer.lr"),
        ("steps: 3", "stepz: 3", "stepz"),
        ("[0.2, 1.0]", "[0.2, 1.5]", "does not lie"),
        ("steps: 3", "steps: {grap: 3}", "did you mean 'graph'"),
        ("steps: 3", "settings: {text: []}", "settings: 'text' is not known"),
        ("steps: 3", "tasks: 1", "tasks"),
        ("domains: [graph]", "domains: []", "grid.domains"),
        ("title: Small", "title: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(old, new, message):
    with pytest.raises(UserError, match=message):
        check(parse(SMALL.replace(old, new), "test"))


def test_unknown_experiments_get_the_nearest_name():
    with pytest.raises(UserError, match="label_efficiency"):
        load("label_eficiency")


def test_an_experiment_runs_resumes_and_reports(tmp_path):
    experiment, told = parse(SMALL, "test"), []
    assert run(experiment, tmp_path, on_done=lambda *x: told.append(x)) == []
    assert [(well, left) for _, well, left in told] == [(True, 1), (True, 0)]
    assert missing(experiment, tmp_path) == []

    rows = collect(tmp_path)
    assert [row["variant"] for row in rows] == ["low", "high"]
    assert [entry["share"] for entry in rows[0]["shares"]] == [0.2, 1.0]
    page = write_page(tmp_path).read_text()
    assert "2 of 2 runs" in page
    assert "Mean rank over domains" in page
    assert (tmp_path / "results.parquet").is_file()

    # Only what is missing is made again.
    lost = cells(experiment)[1]
    (folder_of(tmp_path, lost) / RESULT).unlink()
    assert [cell.name for cell in missing(experiment, tmp_path)] == [lost.name]


def test_a_failing_cell_costs_itself_alone(tmp_path):
    broken = SMALL.replace("optimizer.lr=1e-2", "data.path=/nowhere/at/all").replace(
        "label_fractions: [0.2, 1.0]", ""
    )
    failed = run(parse(broken, "test"), tmp_path)
    assert [failure.cell.variant for failure in failed] == ["high"]
    assert "does not exist" in failed[0].reason
    assert [row["variant"] for row in collect(tmp_path)] == ["low"]
    assert failures(tmp_path) == [(failed[0].cell.name, failed[0].reason)]
    assert "1 of 2 runs, 1 failed" in write_page(tmp_path).read_text()


def row(domain: str, recipe: str, seed: int, trained: float) -> dict:
    return {
        "domain": domain,
        "recipe": recipe,
        "encoder": None,
        "variant": None,
        "seed": seed,
        "score_name": "knn_accuracy",
        "score_raw": 0.3,
        "score_untrained": 0.2,
        "score_trained": trained,
        "effective_rank": 5.0,
        "parameters": 1000,
        "steps": 10,
        "wall_seconds": 2.0,
        "shares": [{"share": 0.1, "raw": 0.1, "untrained": 0.1, "trained": 0.2}],
    }


def test_means_spreads_gains_and_ranks():
    rows = [
        row("a", "x", 0, 0.5),
        row("a", "x", 1, 0.7),
        row("a", "y", 0, 0.4),
        row("b", "x", 0, 0.5),
        row("b", "y", 0, 0.5),
    ]
    groups = grouped(rows)
    assert [len(group) for group in groups.values()] == [2, 1, 1, 1]
    found = stat(r["score_trained"] for r in groups["a", "x", None, None])
    assert found == Stat(pytest.approx(0.6), pytest.approx(0.1414, abs=1e-4), 2)
    assert percent(found).split() == ["60.0", "±", "14.1"]
    assert gain(rows[0]) == pytest.approx(0.2)
    assert gain({**rows[0], "score_trained": None}) is None
    by_recipe = ranks(groups, lambda r: r["score_trained"])
    assert by_recipe == {("x", None, None): 1.25, ("y", None, None): 1.75}
    assert stat([None]) is None


def test_the_page_escapes_what_it_is_given_and_is_alone():
    experiment = parse(SMALL.replace("title: Small", "title: <b>bold</b>"), "test")
    page = render(experiment, [row("a", "x", 0, 0.5)], [("cell", "<script>")])
    assert "<b>bold" not in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_groups_are_named_by_what_tells_them_apart():
    keys = [("a", "x", None, "one two"), ("b", "x", None, "three")]
    assert names_of(keys) == ["a · one two", "b · three"]
    assert names_of(keys[:1]) == ["a · x · one two"]
    assert names_of([]) == []


def test_layers_and_tasks_have_columns_and_sections_of_their_own():
    first = row("a", "x", 0, 0.5)
    first["layers"] = [
        {"layer": "backbone", "knn": 0.5, "probe": 0.6, "effective_rank": 9.0, "dim": 8},
        {"layer": "reweighted", "knn": 0.4, "probe": None, "effective_rank": 5.0, "dim": 8},
    ]
    first["tasks"] = {
        "after": [[0.9, 0.1], [0.7, 0.8]],
        "all": [0.4, 0.6],
        "untrained": [0.2, 0.2],
        "raw": [0.3, 0.3],
        "average": 0.75,
        "forgetting": 0.2,
    }
    first["rates"] = [[1, 0.1], [2, 0.05]]
    flat = flattened(first)
    assert flat["layer_backbone_probe"] == 0.6
    assert (flat["task_1_after_2"], flat["task_2_after_1"]) == (0.7, 0.1)
    assert not {"shares", "layers", "tasks", "rates"} & flat.keys()
    page = render(parse(SMALL, "test"), [first], [])
    for words in ("reweighted", "after task 2", "Learning rate", "forgetting", "ms a step"):
        assert words in page


def test_parquet_has_a_column_for_each_share(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet([row("a", "x", 0, 0.5)], tmp_path / "r.parquet")
    table = parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert table[0]["probe_0.1_trained"] == 0.2
    assert table[0]["domain"] == "a"
