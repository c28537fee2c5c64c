"""How pages are run: what is shortened, what is passed over, which files stand ready."""

import csv
import os
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

import snippet_runs  # noqa: E402


@pytest.fixture
def bench(tmp_path):
    return snippet_runs.Bench(tmp_path, tmp_path / "env" / "bin")


def shortened(bench, line):
    ((program, arguments, _),) = snippet_runs.commands(line)
    return bench.shortened(bench.folder, program, arguments)


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("ssl-graph pretrain --data graphs/", "graphs/ --steps 4 --batch-size 16"),
        ("ssl-text evaluate RUNS --more finetune", "--set finetune.steps=4"),
        ("ssl-graph pretrain --dry-run", "pretrain --dry-run"),
        ("ssl-graph pretrain --steps 4000 --batch-size 4096", "--steps 4 --batch-size 16"),
        ("ssl-graph samples graphs/ --count 1200", "--count 480"),
        (
            "uv run ssl-text pretrain --set train.accumulate=16",
            "train.accumulate=2 --steps 4 --batch-size 16",
        ),
        ("ssl-graph pretrain --set train.steps=20000", "train.steps=4 --steps 4 --batch-size 16"),
        ("ssl-vision plan --batch-size 1024 --gpus 64", "--batch-size 1024 --gpus 64"),
        ("ssl-video samples DIR", "samples new"),
    ],
)
def test_a_command_is_shortened(bench, line, end):
    assert " ".join(shortened(bench, line)).endswith(end)


def test_a_run_is_put_in_the_place_of_capitals(bench):
    base = bench.folder / "base" / "ssl-graph"
    base.mkdir(parents=True)
    (base / "summary.json").write_text("{}")
    words = shortened(bench, "ssl-graph report RUN1 RUN2 --figures figs/")
    assert words[1:3] == [str(bench.folder / "runs" / f"own-graph{n}") for n in (1, 2)]
    assert all((Path(word) / "summary.json").is_file() for word in words[1:3])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ssl-vision pretrain --data elsewhere/", "no elsewhere/ here"),
        ("ssl-vision inspect elsewhere/", "no elsewhere/ here"),
        ("PYTHONPATH=. ssl-vision pretrain --method my_methods:Mine", "the reader's own"),
        ("srun torchrun -m ssl_vision pretrain --recipe RECIPE", "needs a scheduler"),
        ("ssl-vision pretrain --data hf:mnist", "the reader's own"),
    ],
)
def test_what_nobody_can_run_is_passed_over(bench, line, reason):
    ((program, arguments, launcher),) = snippet_runs.commands(line)
    assert reason in bench.passed_over(bench.folder, program, arguments, launcher)


def test_questions_about_nodes_get_a_run_on_nodes(bench):
    base = bench.folder / "base" / "ssl-graphnodes"
    base.mkdir(parents=True)
    (base / "summary.json").write_text("{}")
    words = shortened(bench, "ssl-graph evaluate RUN --more nodes")
    assert words[1] == str(bench.folder / "runs" / "own-graphnodes")


def test_python_that_reads_what_nobody_has_made_is_told_apart(bench):
    bench.folder.mkdir(exist_ok=True)
    (bench.folder / "there").mkdir()
    assert snippet_runs.absent(bench.folder, 'x.load("runs/mine")') == "runs/mine"
    assert snippet_runs.absent(bench.folder, 'x.pretrain(data="sounds/")') == "sounds/"
    made = 'x.pretrain(data="there/", out="runs/new")\nx.load("runs/new")'
    assert snippet_runs.absent(bench.folder, made) is None


def test_what_is_there_is_run(bench):
    (bench.folder / "photos").mkdir()
    line = "torchrun --nproc-per-node 8 -m ssl_vision pretrain --data photos/"
    ((program, arguments, launcher),) = snippet_runs.commands(line)
    assert launcher == "torchrun"
    assert bench.passed_over(bench.folder, program, arguments, launcher) is None


def test_tables_and_shards_are_made_of_the_images(tmp_path):
    for name in ("1/a.png", "1/b.jpg", "2/c.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    snippet_runs.write_tables(tmp_path / "photos", tmp_path)
    with open(tmp_path / "photos.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["label"] for row in rows] == ["1", "1", "2"]
    assert all((tmp_path / row["path"]).is_file() for row in rows)
    with tarfile.open(tmp_path / "shards" / "train-0000.tar") as tar:
        assert len(tar.getnames()) == 3


def test_python_of_a_page_takes_few_steps_and_says_where_it_fails(bench, monkeypatch):
    bench.programs.mkdir(parents=True)
    os.symlink(sys.executable, bench.programs / "python")
    monkeypatch.setattr(snippet_runs, "PRELUDE", "")
    blocks = [
        "run = x.pretrain(data=1)",
        "x.pretrain(y(), steps=9)",
        'x.pretrain("mae", data=1)',
        "x.adapt(steps=2000)",
    ]
    problem = bench.python(bench.folder, blocks)
    assert "NameError" in problem
    assert (bench.folder / "page.py").read_text().split("\n\n") == [
        "run = x.pretrain(steps=4, data=1)",
        "x.pretrain(y(), steps=4)",
        'x.pretrain("mae", steps=4, data=1)',
        "x.adapt(steps=4)",
    ]
    assert bench.python(bench.folder, ["assert True"]) is None
