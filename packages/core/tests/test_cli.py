"""The command: output for people and for programs, exit codes, cheap help."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from ssl_core import api
from ssl_core.cli import command_line
from ssl_core.cli.app import App
from ssl_core.errors import TrainingAborted

SPEC = "ssl_core.testing.vectors:VECTORS"
main = command_line(SPEC, name="vectors")
SHORT = [
    "--set", "train.steps=12", "--set", "train.batch_size=32", "--set", "train.log_every=4",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(_cache: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("runs") / "first")
    assert invoke("pretrain", *SHORT, "--out", folder).exit_code == 0
    return folder


def invoke(*args: str) -> Result:
    return CliRunner().invoke(main.commands, list(args))


def as_json(*args: str) -> dict[str, Any]:
    """The last line of stdout, which must be the only one."""
    result = invoke(*args, "--json")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_pretrain_ends_with_rivals_folder_and_next_steps(run: str) -> None:
    result = invoke("pretrain", *SHORT, "--out", run)
    assert "is finished" in result.stdout
    for word in ("raw input", "untrained encoder", "trained encoder", "k-NN accuracy", run):
        assert word in result.stdout
    assert f"ssl-vectors evaluate {run}" in result.stdout


def test_pretrain_json_is_one_object(run: str, tmp_path: Path) -> None:
    found = as_json("pretrain", *SHORT, "--seed", "3", "--out", str(tmp_path / "x"))
    assert found["steps"] == 12
    assert set(found["knn"]) == {"raw", "untrained", "trained"}
    assert found["run"] == str(tmp_path / "x")


def test_progress_goes_to_stderr(tmp_path: Path) -> None:
    result = invoke("pretrain", *SHORT, "--out", str(tmp_path / "x"))
    assert "step 12/12" in result.stderr
    assert "samples/s" in result.stderr
    assert "step 12/12" not in result.stdout
    quiet = invoke("pretrain", *SHORT, "--out", str(tmp_path / "y"), "--no-progress")
    assert quiet.stderr == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["pretrain", "--method", "simclrr"], ["did you mean 'simclr'"]),
        (["pretrain", "--encoder", "mpl"], ["did you mean 'mlp'"]),
        (["pretrain", "--recipe", "defalt"], ["did you mean 'default'"]),
        (["pretrain", "--set", "train.step=1"], ["did you mean 'train.steps'"]),
        (["pretrain", "--steps", "x"], ["--steps", "'x' is not a valid integer"]),
        (["pretrain", "--data", "/no/such/folder"], ["/no/such/folder"]),
        (["pretrain", "--metod", "x"], ["--metod", "--help"]),
        (["pretrain", "--set", "a=1", "b=2"], ["b=2", "write --set before each KEY=VALUE"]),
        (["pretrain", "default"], ["(default)", "name a recipe by --recipe NAME"]),
        (["pretrian"], ["did you mean 'pretrain'"]),
        (["pretrain", "--track", "tensorbord"], ["track", "did you mean 'tensorboard'"]),
        (["pretrain", "--dry-run", "--method", "simclrr"], ["did you mean 'simclr'"]),
        (["report", "/no/run"], ["'/no/run' is not a run folder"]),
        (["completion", "bsh"], ["did you mean 'bash'"]),
        (["watch", "/no/folder"], ["'/no/folder' is not a folder"]),
        (["evaluate", "/no/run"], ["'/no/run' is not a run folder"]),
        (["samples", "."], ["not empty"]),
        (["samples", "new", "--kind", "other"], ["one kind of samples"]),
        (["list", "metods"], ["did you mean 'methods'"]),
    ],
)
def test_user_errors_are_one_line_and_exit_2(args: list[str], words: list[str]) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    found = json.loads(invoke(*args, "--json").stdout)
    assert found["exit_code"] == 2
    assert found["error"]


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in invoke("pretrain", "--method", "x", "--debug").stderr


def raising(error: BaseException):
    def pretrain(*args: Any, **kwargs: Any) -> None:
        raise error

    return pretrain


@pytest.mark.parametrize(
    ("error", "code", "traced"),
    [
        (TrainingAborted("too many skipped"), 3, False),
        (KeyboardInterrupt(), 130, False),
        (ZeroDivisionError("ours"), 1, True),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, traced: bool
) -> None:
    monkeypatch.setattr(api, "pretrain", raising(error))
    result = invoke("pretrain", "--json")
    assert result.exit_code == code
    assert ("Traceback" in result.stderr) == traced
    assert json.loads(result.stdout)["exit_code"] == code


def test_a_run_of_another_domain_is_refused(run: str, tmp_path: Path) -> None:
    recipe = Path(run, "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(recipe.replace("domain: vectors", "domain: vision"))
    result = invoke("evaluate", str(tmp_path))
    assert result.exit_code == 2
    assert "ssl-vision" in result.stderr


def test_evaluate_finetune_export_report(run: str, tmp_path: Path) -> None:
    assert as_json("evaluate", run)["rivals"]["trained"]["probe"]["accuracy"] > 0
    assert "linear probe" in invoke("evaluate", run).stdout
    tuned = as_json("finetune", run, "--steps", "5", "--out", str(tmp_path / "t"))
    assert set(tuned["accuracy"]) == {"probe", "finetuned"}
    path = str(tmp_path / "e.safetensors")
    assert as_json("export", run, path) == {"path": path, "format": "safetensors"}
    Path(run, "report.html").unlink()
    assert Path(as_json("report", run)["report"]).is_file()
    assert as_json("resume", run)["steps"] == 12


def test_report_compares_runs(run: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    invoke("pretrain", *SHORT, "--method", "byol", "--out", other)
    out = str(tmp_path / "compared.html")
    assert as_json("report", run, other, "--out", out) == {"report": out, "figures": []}
    page = Path(out).read_text()
    for word in ("first", "other", "simclr", "byol", "method.name", "What differs"):
        assert word in page
    assert as_json("report", run, "--out", out)["report"] == out
    assert "Reproduce" in Path(out).read_text()
    twice = invoke("report", run, run)
    assert twice.exit_code == 2
    assert "given twice" in twice.stderr


def test_a_dry_run_shows_everything_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = as_json("pretrain", *SHORT, "--dry-run")
    assert "steps: 12" in found["recipe"]
    assert found["data"]["train"] > found["data"]["heldout"] > 0
    assert found["parameters"]["whole method"] > found["parameters"]["encoder"] > 0
    assert found["epochs"] == 12 * 32 / found["data"]["train"]
    assert found["plan"]["memory"]["total"] > 0
    assert found["picture"] is None  # vectors have no look
    assert list(tmp_path.iterdir()) == []
    said = invoke("pretrain", *SHORT, "--dry-run").stdout
    for word in ("method:\n  name: simclr", "whole method", "a step", "nothing was trained"):
        assert word in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_each_shell(shell: str) -> None:
    script = as_json("completion", shell)["script"]
    assert "_SSL_VECTORS_COMPLETE" in script
    assert f"{shell}_complete" in script
    assert invoke("completion", shell).stdout.rstrip() == script.rstrip()


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "pre", ["pretrain"]),
        (["pretrain"], "--metho", ["--method"]),
        (["pretrain", "--method"], "barlow", ["barlow_twins"]),
        (["pretrain", "--encoder"], "ml", ["mlp"]),
        (["list"], "rec", ["recipes"]),
    ],
)
def test_completion_offers_names(words: list[str], incomplete: str, expected: list[str]) -> None:
    context = {"obj": App(SPEC, "vectors")}
    complete = ShellComplete(main.commands, context, "ssl-vectors", "_SSL_VECTORS_COMPLETE")
    found = [item.value for item in complete.get_completions(words, incomplete)]
    assert found == expected


def test_embed_writes_vectors_beside_keys(run: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert as_json("samples", str(data), "--count", "20")["count"] == 20
    out = tmp_path / "v.npy"
    found = as_json("embed", run, "--data", str(data), "--out", str(out))
    assert (found["count"], found["dim"], found["corrupt"]) == (20, 32, [])
    assert np.load(out).shape == (20, 32)
    assert (tmp_path / "v.keys.txt").read_text().split() == [f"row-{i:05d}" for i in range(20)]
    assert np.load(tmp_path / "v.labels.npy").tolist() == [i % 5 for i in range(20)]
    assert invoke("embed", run, "--data", str(data), "--out", "v.csv").exit_code == 2


def test_embed_fails_where_nothing_could_be_read(run: str, tmp_path: Path, monkeypatch) -> None:
    from ssl_core.runs import embedding

    failures = [embedding.Failure(0, "row-00000", "is cut off")]
    none = embedding.Embedded([], 0, 32, 0, failures)
    monkeypatch.setattr(embedding, "embed_to", lambda *_, **__: none)
    assert as_json("samples", str(tmp_path / "data"), "--count", "20")["count"] == 20
    result = invoke("embed", run, "--data", str(tmp_path / "data"), "--out", "v.npy")
    assert result.exit_code == 2
    assert "row-00000: is cut off" in result.output
    assert "none of 1 records" in result.output


def test_embed_writes_parquet(run: str, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    invoke("samples", str(tmp_path / "data"), "--count", "20")
    out = str(tmp_path / "v.parquet")
    as_json("embed", run, "--data", str(tmp_path / "data"), "--out", out)
    table = parquet.read_table(out)
    assert table.column_names == ["key", "label", "embedding"]
    assert len(table["embedding"][0].as_py()) == 32


def test_list_inspect_doctor_bench(tmp_path: Path) -> None:
    assert as_json("list", "methods")["methods"][:2] == ["barlow_twins", "byol"]
    assert as_json("list", "methods", "--match", "sim*") == {"methods": ["simclr"]}
    assert set(as_json("list")) == {"methods", "encoders", "views", "recipes"}
    long = as_json("list", "--long")
    assert long["methods"]["simclr"]["temperature"] == "0.1"
    assert long["recipes"].keys() == set(as_json("list")["recipes"])
    assert "temperature: 0.1" in invoke("list", "methods", "--long", "--match", "simclr").output
    invoke("samples", str(tmp_path / "data"), "--count", "20")
    looked = as_json("inspect", str(tmp_path / "data"))
    assert looked["records"] == looked["checked"] == 20
    assert looked["classes"] == {str(i): 4 for i in range(5)}
    # Vectors have no look: nothing is drawn, and no file is left.
    assert looked["views"] == {"name": "noise", "picture": None, "captions": [], "words": {}}
    found = as_json("doctor")
    assert found["versions"]["torch"]
    assert isinstance(found["problems"], list)
    rates = as_json("bench", "--seconds", "0.01", "--batch-size", "16")["rates"]
    assert set(rates) == {"reading", "views", "training step"}


def test_every_command_has_help_and_json() -> None:
    names = (
        "pretrain adapt resume evaluate finetune embed export report inspect samples list doctor "
        "bench pack verify watch completion plan"
    )
    assert sorted(main.commands.commands) == sorted(names.split())
    for name in names.split():
        shown = invoke(name, "--help")
        assert shown.exit_code == 0
        assert "--json" in shown.stdout
        examples = shown.stdout.partition("Examples:\n")[2].splitlines()
        assert examples
        assert all(line.startswith(f"  ssl-vectors {name}") for line in examples), name


def test_examples_are_lines_the_commands_take() -> None:
    for name, command in main.commands.commands.items():
        for line in command.examples:
            words = shlex.split(line.partition(">")[0].partition("|")[0])
            assert words[0] == name
            context = command.make_context(name, words[1:], parent=click.Context(main.commands))
            for kind in ("method", "encoder", "recipe"):
                asked = context.params.get(kind)
                known = (None, "byol", "runs/first", "default")
                assert asked in known, f"{line}: not every domain has {asked!r}"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from ssl_core.cli import command_line\n"
        f"main = command_line({SPEC!r}, name='vectors')\n"
        "try: main(['pretrain', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'rich', 'yaml', 'pydantic', 'ssl_core.testing.vectors'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import os; assert os.environ['OMP_WAIT_POLICY']\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("world", "torn_down"), [("1", True), ("2", False)])
def test_a_launched_process_leaves_without_teardown(world: str, torn_down: bool) -> None:
    code = (
        "import atexit; atexit.register(print, 'torn down')\n"
        f"from ssl_core.cli import command_line; command_line({SPEC!r}, name='vectors')()"
    )
    env = {**os.environ, "WORLD_SIZE": world}
    for words, status in (["list", "methods"], 0), (["nonsense"], 2):
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert done.returncode == status
        assert ("torn down" in done.stdout) is torn_down
        assert "simclr" in done.stdout or "nonsense" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_saves_says_how_to_go_on_and_exits_143(tmp_path: Path, number: int) -> None:
    out = tmp_path / "run"
    code = f"from ssl_core.cli import command_line; command_line({SPEC!r}, name='vectors')()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "pretrain", "--out", str(out), "--steps", "1000000", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
    )
    deadline = time.monotonic() + 150
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").stat().st_size:
        assert time.monotonic() < deadline, "training did not start"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=150)
    assert process.returncode == 143
    assert json.loads(stdout.splitlines()[-1])["exit_code"] == 143
    assert f"ssl-vectors resume {out}" in stderr
    assert list((out / "checkpoints").glob("step-*/meta.json"))


def test_a_reader_that_stops_early_sees_no_traceback() -> None:
    """`ssl-vectors list ... | head -1`: the other end of the pipe is closed before we write."""
    code = f"from ssl_core.cli import command_line; command_line({SPEC!r}, name='vectors')()"
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", code, "list", "methods"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert "Traceback" not in done.stderr
