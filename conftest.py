"""Settings of every test: one thread, passive OpenMP waits, no surprise from the machine."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_initialisation() -> None:
    """Networks are initialised from torch's global generator; every test starts it anew."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test outlives a power cut: files are not forced to the disk, which may take a second
    each where others write too. Jobs that tests start as processes of their own do it."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
