"""What `doctor` finds out about this machine and installation."""

from __future__ import annotations

import importlib
import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ssl_core.domain import Domain
from ssl_core.environment import available_cores
from ssl_core.files import cache_folder
from ssl_core.runs.summary import versions

_LOW_DISK = 2 * 1024**3
_SMALL_SHARED = 256 * 1024**2
_FEW_FILES = 512
_FULL_GPU = 0.1
_DRIVER = Path("/proc/driver/nvidia/version")
_EXTRAS = {
    "table (Parquet)": "pyarrow",
    "hub (Hugging Face data)": "datasets",
    "remote (shards behind https://)": "aiohttp",
    "figures": "matplotlib",
    "umap (maps)": "umap-learn",
    "onnx (export)": "onnx",
    "tracking (TensorBoard)": "tensorboard",
    "tracking (Weights & Biases)": "wandb",
}
"""Extra of ssl-core, with what it is for, and the package that shows it is there."""


def diagnose(domain: Domain) -> dict[str, Any]:
    """Sections of facts; `problems` and `advice`: what is wrong or could be had, and how."""
    cache = cache_folder()
    abilities = dict(domain.abilities())
    extras = {name: _extra(name, package) for name, package in _EXTRAS.items()}
    problems = [
        *_library_problems(domain),
        *_gpu_problems(),
        *_thread_problems(),
        *_folder_problems(cache),
        *_limit_problems(),
    ]
    return {
        "versions": versions(domain.package.replace("_", "-"), *domain.libraries),
        "compute": {
            "cores": available_cores(),
            "torch threads": torch.get_num_threads(),
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"),
            **_gpus(),
        },
        domain.name: abilities,
        "extras": extras,
        "disk": {
            "here": _free(Path.cwd()),
            "cache": f"{cache} ({_free(cache)})",
        },
        "problems": problems,
        "advice": [
            f"{name}: {state}"
            for name, state in {**abilities, **extras}.items()
            if state.startswith("missing")
        ],
    }


def _extra(name: str, package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        extra = name.partition(" ")[0]
        return f"missing; pip install 'ssl-core[{extra}]'"


def _library_problems(domain: Domain) -> list[str]:
    """Libraries of the domain that are absent or do not load (built for another torch)."""
    modules: dict[str, list[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for package in packages:
            modules.setdefault(package.lower().replace("_", "-"), []).append(module)
    found = []
    for library in domain.libraries:
        names = [name for name in modules.get(library.lower(), []) if not name.startswith("_")]
        if not names:
            found.append(f"{library} is not installed; pip install {library}")
            continue
        try:
            importlib.import_module(min(names, key=len))
        except Exception as error:  # what a broken library raises is its own affair
            found.append(
                f"{library} does not load ({type(error).__name__}: {str(error)[:120]}); install "
                f"the one made for torch {torch.__version__}: pip install --upgrade {library}"
            )
    return found


def _gpus() -> dict[str, str]:
    if not torch.cuda.is_available():
        return {"GPU": "none visible to torch"}
    out = {}
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        bf16 = "bf16" if facts.major >= 8 else "no bf16"
        out[f"cuda:{number}"] = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {bf16}"
    return out


def _gpu_problems() -> list[str]:
    """A driver without a torch that uses it, a GPU too old or too full."""
    if not torch.cuda.is_available():
        if not _DRIVER.exists():
            return []
        if torch.version.cuda is None:
            words = "an NVIDIA driver is installed, but this torch was built without CUDA"
            return [f"{words}; install one with it (see pytorch.org, get started)"]
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = (
            f"CUDA_VISIBLE_DEVICES={hidden!r} hides it"
            if hidden is not None
            else (
                f"its driver may be older than CUDA {torch.version.cuda} needs; update the driver"
            )
        )
        return [f"an NVIDIA driver is installed, but torch sees no GPU: {why}"]
    found = []
    built = torch.cuda.get_arch_list()
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        oldest = min((int(name[3:].rstrip("a")) for name in built if name[:3] == "sm_"), default=0)
        if facts.major * 10 + facts.minor < oldest:
            found.append(f"cuda:{number} ({facts.name}) is older than this torch supports")
            continue
        free, total = torch.cuda.mem_get_info(number)
        if free < _FULL_GPU * total:
            found.append(
                f"cuda:{number} has {free / 2**30:.1f} of {total / 2**30:.0f} GiB free: another "
                "process uses it (nvidia-smi says which); pick another with --device"
            )
    return found


def _limit_problems() -> list[str]:
    """Limits of the system that stop loaders in the middle of a run."""
    found = []
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).total < _SMALL_SHARED:
        found.append(
            "/dev/shm is smaller than 256 MiB, too small for loader processes; give the container "
            "--shm-size=2g, or keep data.worker_kind=thread"
        )
    try:
        import resource
    except ImportError:  # not on this system
        return found
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files < _FEW_FILES:
        found.append(f"only {files} files may be open at once; raise it: ulimit -n 4096")
    return found


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
            found.append(
                f"{name} {folder} has less than 2 GiB free; clear it, or choose "
                "another (SSL_CACHE, --out)"
            )
    return found


def _existing(folder: Path) -> Path:
    """The folder, or the nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(_existing(folder)).free / 2**30:.1f} GiB free"
