"""What `doctor` finds, and what it says to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssl_core.runs import diagnosis
from ssl_core.runs.diagnosis import diagnose
from ssl_core.testing.vectors import VECTORS


class Odd(type(VECTORS)):  # type: ignore[misc]
    """A domain with a library nobody has and a format it lacks."""

    libraries = ("no-such-library", "numpy")

    def abilities(self) -> Mapping[str, str]:
        return {"XYZ": "missing; pip install xyz", "ABC": "here"}


def problems(domain: Any = VECTORS) -> str:
    return "\n".join(diagnose(domain)["problems"])


def test_missing_libraries_and_formats_come_with_a_command() -> None:
    found = diagnose(Odd())
    assert "no-such-library is not installed; pip install no-such-library" in found["problems"]
    assert "XYZ: missing; pip install xyz" in found["advice"]
    assert not any("ABC" in line for line in found["advice"])
    assert set(found["extras"]) == set(diagnosis._EXTRAS)


def test_a_library_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError(f"operator {name}::nms does not exist")

    monkeypatch.setattr(diagnosis.importlib, "import_module", broken)
    assert "numpy does not load (RuntimeError: operator numpy::nms" in problems(Odd())


@pytest.mark.parametrize(
    ("cuda", "hidden", "words"),
    [
        (None, None, "built without CUDA"),
        ("13.0", "", "CUDA_VISIBLE_DEVICES='' hides it"),
        ("13.0", None, "update the driver"),
    ],
)
def test_a_driver_without_a_gpu_for_torch(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cuda: str | None,
    hidden: str | None,
    words: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    monkeypatch.setattr(diagnosis, "_DRIVER", tmp_path / "version")
    assert "NVIDIA" not in problems()
    (tmp_path / "version").touch()
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert words in problems()


def test_a_gpu_too_old_or_too_full(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [
        SimpleNamespace(name="Old", major=5, minor=2, total_memory=2**33),
        SimpleNamespace(name="Full", major=9, minor=0, total_memory=2**33),
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "compute_90"])
    monkeypatch.setattr(torch.cuda, "get_device_properties", gpus.__getitem__)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (2**28, 2**33))
    found = diagnosis._gpu_problems()
    assert len(found) == 2
    assert "cuda:0 (Old) is older" in found[0]
    assert "cuda:1 has 0.2 of 8 GiB free" in found[1]


def test_limits_threads_and_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    little = SimpleNamespace(total=2**26, used=0, free=2**26)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    found = problems()
    for words in ("ulimit -n", "10000 compute threads", "unset it", "less than 2 GiB free"):
        assert words in found
