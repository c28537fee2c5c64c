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
