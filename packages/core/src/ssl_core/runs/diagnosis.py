"""What `doctor` finds out about this machine and installation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from ssl_core.domain import Domain
from ssl_core.environment import available_cores
from ssl_core.runs.parts import cache_folder
from ssl_core.runs.summary import versions

_LOW_DISK = 2 * 1024**3


def diagnose(domain: Domain) -> dict[str, Any]:
    """Sections of facts, and `problems`: sentences that say what is wrong and what to do."""
    cache = cache_folder()
    problems = [*_thread_problems(), *_folder_problems(cache)]
    return {
        "versions": versions(domain.package.replace("_", "-"), *domain.libraries),
        "compute": {
            "cores": available_cores(),
            "torch threads": torch.get_num_threads(),
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"),
            **_gpus(),
        },
        domain.name: dict(domain.abilities()),
        "disk": {
            "here": _free(Path.cwd()),
            "cache": f"{cache} ({_free(cache)})",
        },
        "problems": problems,
    }


def _gpus() -> dict[str, str]:
    if not torch.cuda.is_available():
        return {"GPU": "none visible to torch"}
    out = {}
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if facts.major >= 8 else "no bf16"
        out[f"cuda:{number}"] = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {bf16}"
    return out


def _thread_problems() -> list[str]:
    found = []
    if torch.get_num_threads() > available_cores():
        found.append(
            f"{torch.get_num_threads()} compute threads on {available_cores()} cores slow each "
            f"other down; set OMP_NUM_THREADS={available_cores()} or less"
        )
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE":
        found.append("OMP_WAIT_POLICY=ACTIVE makes waiting threads spin; unset it")
    return found


def _folder_problems(cache: Path) -> list[str]:
    found = []
    for name, folder in (("the working folder", Path.cwd()), ("the cache", _existing(cache))):
        if not os.access(folder, os.W_OK):
            found.append(f"{name} {folder} cannot be written to; choose another (SSL_CACHE, --out)")
        if shutil.disk_usage(folder).free < _LOW_DISK:
            found.append(f"{name} {folder} has less than 2 GiB free")
    return found


def _existing(folder: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(_existing(folder)).free / 2**30:.1f} GiB free"
