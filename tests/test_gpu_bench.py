"""The benchmark of whole steps runs where there is no GPU, too, so that it will where there is."""

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools/bench/gpu.py"
SHORT = ["--device", "cpu", "--tiny", "--warm", "1", "--steps", "2"]


@pytest.fixture(scope="module")
def bench():
    sys.path.append(str(TOOL.parent))  # it shares a file with its neighbours
    spec = importlib.util.spec_from_file_location("tool_gpu_bench", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def numbers(line):
    """Title -> value of one line."""
    pairs = [part.rsplit(" ", 1) for part in line[16:].split(", ")]
    return {title.strip(): float(value) for title, value in pairs}


def test_cases_are_measured(bench, capsys):
    names = ["simclr_vit_s", "dino_vit_s", "mae_vit_l"]
    bench.main([*SHORT, "--cases", *names, "--set", "data.workers=0"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split()[0] for line in lines] == names
    for found in map(numbers, lines):
        assert set(found) == {
            "samples a second",
            "ms a step",
            "MFU %",
            "data wait %",
            "memory MiB",
            "views %",
        }
        assert found["samples a second"] * found["ms a step"] == pytest.approx(8000, rel=1e-2)
        assert min(found["MFU %"], found["views %"]) > 0


def test_the_published_size_is_what_runs_without_tiny(bench, tmp_path):
    given = bench.argparse.Namespace(
        warm=20, steps=40, batch=None, tiny=False, set=["train.compile=true"], device="cpu"
    )
    data = bench.images(tmp_path, 4, 16)
    made = {name: bench.recipe_of(case, data, given) for name, case in bench.CASES.items()}
    assert {name: recipe.encoder.name for name, recipe in made.items()} == {
        "simclr_vit_s": "vit_small_patch16",
        "dino_vit_s": "vit_small_patch16",
        "mae_vit_b": "vit_base_patch16",
        "mae_vit_l": "vit_large_patch16",
    }
    for recipe in made.values():
        assert recipe.train.precision == "bf16"
        assert recipe.train.compile
        assert recipe.views.options["size"] == 224
        # No log point before the clock stops.
        assert recipe.train.log_every > given.warm + given.steps


def test_views_alone(bench, capsys):
    bench.main([*SHORT, "--views"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "ours" in line]
    assert len(lines) == 2
