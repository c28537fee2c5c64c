"""Files that are whole or absent, run folders, process settings."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core import environment, files
from ssl_core.errors import UserError
from ssl_core.runs.folder import Run, locate, resolve
from ssl_core.testing.vectors import VECTORS, VectorDomain


def test_atomic_write_replaces_whole_files(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "x.txt"
    files.atomic_write(target, "one")
    files.atomic_write(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(target.parent) == ["x.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    files.atomic_write(target, "old")

    def broken_writer() -> None:
        with files.atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        broken_writer()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.bin"]


def test_atomic_path_keeps_the_umask(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / "x") as temporary:
        temporary.chmod(0o600)
    (tmp_path / "plain").touch()
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_atomic_folder_keeps_the_first(tmp_path: Path) -> None:
    with files.atomic_folder(tmp_path / "a") as outer:
        with files.atomic_folder(tmp_path / "a") as inner:
            (inner / "who").write_text("inner")
        (outer / "who").write_text("outer")
    assert (tmp_path / "a" / "who").read_text() == "inner"
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(ValueError, match="x"), files.atomic_folder(tmp_path / "b"):
        raise ValueError("x")
    assert os.listdir(tmp_path) == ["a"]


def test_json_takes_numbers_of_all_kinds(tmp_path: Path) -> None:
    content = {
        "nan": math.nan,
        "inf": torch.tensor(math.inf),
        "np": np.float32(0.5),
        "array": np.arange(3),
        "tensor": torch.tensor([True]),
        "path": tmp_path,
        5: (1, None),
    }
    files.write_json(tmp_path / "x.json", content)
    assert files.read_json(tmp_path / "x.json") == {
        "nan": None,
        "inf": None,
        "np": 0.5,
        "array": [0, 1, 2],
        "tensor": [True],
        "path": str(tmp_path),
        "5": [1, None],
    }
    with pytest.raises(TypeError, match="no place in JSON"):
        files.to_json(object())


def test_run_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        Run.load(tmp_path)
    (tmp_path / "recipe.yaml").write_text("{}")
    run = Run.load(tmp_path)
    assert not run.finished
    with pytest.raises(UserError, match=r"no summary\.json"):
        _ = run.summary
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert run.metrics() == [{"step": 1}, {"step": 2}]
    assert run.corrupt() == []


def test_domains_are_found_again_by_name() -> None:
    assert locate(VECTORS) == "ssl_core.testing.vectors:VECTORS"
    assert resolve("ssl_core.testing.vectors:VECTORS") is VECTORS
    assert resolve(VECTORS) is VECTORS
    assert locate(VectorDomain()) is None
    for wrong in ("nowhere:X", "ssl_core.testing.vectors:NOPE", "", None):
        with pytest.raises(UserError, match="cannot be imported"):
            resolve(wrong)
    with pytest.raises(UserError, match="not a Domain"):
        resolve("ssl_core.testing.vectors:VectorDomain")


def test_core_quota(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    for text, cores in (("150000 100000", 1), ("400000 100000", 4), ("50000 100000", 1)):
        quota.write_text(text)
        assert environment._cgroup_cores(quota) == cores
    quota.write_text("max 100000")
    assert environment._cgroup_cores(quota) is None
    assert environment._cgroup_cores(tmp_path / "none") is None


def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "available_cores", lambda: 8)
    assert environment.threads() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert environment.threads() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert environment.threads() == 1


def test_threads_are_settled_before_torch_is_loaded() -> None:
    code = (
        "import ssl_core.api, os, sys, json, torch;"
        "print(json.dumps([os.environ['OMP_WAIT_POLICY'], torch.get_num_threads()]))"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environ, "LOCAL_WORLD_SIZE": "10000"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == ["PASSIVE", 1]


_STEPS = """
import resource
import ssl_core.environment

def step():
    blocks = [b"x" * (4 << 20) for _ in range(16)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step()
first = step()
print(step() - first)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_what_a_step_frees_is_kept_for_the_next() -> None:
    """Unless the user set the allocator himself."""

    def faults(**settings: str) -> int:
        environ = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
        environ.pop("GLIBC_TUNABLES", None)
        done = subprocess.run(
            [sys.executable, "-c", _STEPS],
            env=environ | settings,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert faults() < 100
    assert faults(MALLOC_TRIM_THRESHOLD_="131072") > 1000
