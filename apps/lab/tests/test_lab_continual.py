"""Task after task: how classes are divided, what is forgotten, and that runs go on."""

import dataclasses

import numpy as np
import pytest

from ssl_core.errors import UserError
from ssl_core.files import read_json
from ssl_core.runs.folder import Run, resolve
from ssl_lab.cell import RESULT, domain_of, make, recipe_of
from ssl_lab.continual import divided, forgetting, learn
from ssl_lab.experiment import cells, parse

SMALL = """
title: Small
grid:
  domains: [graph]
  seeds: [0]
  variants:
    cosine: []
    infinite: [optimizer.infinite.constant=2e-4, optimizer.infinite.warmup=1,
               optimizer.infinite.anneal=2, optimizer.end_lr=1e-5]
steps: 6
tasks: 2
settings: {graph: [data.limit=200, train.log_every=1]}
"""


def test_classes_are_divided_evenly_and_in_order():
    labels = np.array([4, 0, 2, -1, 3, 1, 2])
    assert [part.tolist() for part in divided(labels, 2)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(UserError, match="has 5 classes"):
        divided(labels, 3)


def test_forgetting_counts_from_when_a_task_was_learned():
    # Task 2's accuracy before it was learned (0.9) is no best of its own.
    assert forgetting([[0.8, 0.9, 0.1], [0.6, 0.5, 0.1], [0.5, 0.6, 0.9]]) == pytest.approx(
        ((0.8 - 0.5) + (0.5 - 0.6)) / 2
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("continual")
    found = {}
    for cell in cells(parse(SMALL, "test")):
        make(cell, folder / cell.variant, "cpu")
        found[cell.variant] = cell, folder / cell.variant
    return found


def test_a_cosine_begins_anew_with_every_task(made):
    _, folder = made["cosine"]
    result = read_json(folder / RESULT)
    rates = [rate for _, rate in result["rates"]]
    assert len(rates) == result["steps"] == 12
    assert rates[:6] == rates[6:]
    assert np.shape(result["tasks"]["after"]) == (2, 2)
    assert result["tasks"]["average"] == pytest.approx(np.mean(result["tasks"]["after"][1]))


def test_an_infinite_rate_goes_on_from_before_the_annealing(made):
    _, folder = made["infinite"]
    trunk = [record["lr"] for record in Run(folder / "run").metrics()]
    assert trunk[1:] == pytest.approx([1e-3, *[2e-4] * 6])
    ended = [rate for _, rate in read_json(folder / RESULT)["rates"]]
    assert ended[:8] == trunk
    assert ended[8:] == pytest.approx([2e-4, (2e-4 * 1e-5) ** 0.5])
    assert not (folder / "annealed-1").exists()


def test_only_what_is_missing_is_learned_again(made):
    cell, folder = made["infinite"]
    before = read_json(folder / RESULT)
    (folder / "task-2.json").unlink()
    again = learn(resolve(domain_of(cell)), recipe_of(cell, "cpu"), 2, folder)
    assert again["tasks"] == before["tasks"]


def test_annealing_must_leave_steps(tmp_path):
    cell = cells(parse(SMALL, "test"))[1]
    short = dataclasses.replace(cell, steps=2)
    with pytest.raises(UserError, match="leave none of 2"):
        make(short, tmp_path, "cpu")
