"""Process settings that must be in place before torch is imported; imports nothing heavy.

Importing this module sets them, so an entry point imports it first. What the user already set
in the environment is kept.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def available_cores() -> int:
    """Cores this process may use: affinity and container quota, not what the machine has."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cgroup_cores(Path("/sys/fs/cgroup/cpu.max"))
    return max(1, cores if quota is None else min(cores, quota))


def _cgroup_cores(path: Path) -> int | None:
    """Whole cores a control group (version 2) grants, or None without a limit."""
    try:
        quota, period = path.read_text().split()[:2]
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


def prepare() -> None:
    """Sets the defaults below where the environment says nothing; harmless when repeated."""
    defaults = {
        # A thread that spins while it waits takes the core from the one it waits for: on a busy
        # machine a small operation then costs milliseconds instead of microseconds.
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(threads()),
        # Large blocks of memory on huge pages: fewer page faults where activations are allocated
        # anew every step (14 % of a step of the audio default, 4 % of the text default).
        "THP_MEM_ALLOC_ENABLE": "1",
        # Deterministic matrix products on CUDA need a fixed workspace.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # Forking after a tokenizer used its own thread pool would otherwise print warnings.
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    keep_freed_memory()


_MALLOC = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


def keep_freed_memory() -> None:
    """Lets glibc keep what a training step frees, for the next to take.

    By itself it returns the end of its heap after every step, to be handed out again page by page,
    each cleared. Blocks of 8 MiB and more have mappings of their own, which leave at once: kept in
    one heap with all others they would lie in pieces (`tools/bench/steps.py`). What lies free at
    the heap's end beyond 1 GiB is returned as before.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _MALLOC):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, 8 << 20)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def threads() -> int:
    """Compute threads for this process: its share of the cores when several run on one host."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, available_cores() // max(1, local))


prepare()
