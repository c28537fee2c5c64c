"""Sharded, recomputed and cached trainings end where the plain one ends, and swap checkpoints."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_core.engine.checkpoint import Checkpoints

SCRIPT = str(Path(__file__).with_name("sharded_training.py"))
STEPS = 6


def start(out, world, *jobs):
    """Runs the jobs one after another on `world` processes, each in `out/<job>`."""
    out.mkdir(parents=True, exist_ok=True)
    # An encoder's result that is a view could lose what FSDP hangs on it.
    refused = "error:FSDP2-wrapped module:UserWarning"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": refused}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(out), ",".join(jobs), str(world), str(rank)],
            env=env,
            stderr=subprocess.PIPE,
        )
        for rank in range(world)
    ]
    errors = [process.communicate(timeout=400)[1].decode() for process in processes]
    assert not any(process.returncode for process in processes), errors[0][-3000:]
    Path(f"{out}.rendezvous").unlink(missing_ok=True)


def state(out):
    return Checkpoints(out / "checkpoints")._read(STEPS)[1]


def assert_close(a, b):
    """Adam divides by the root of tiny second moments: rounding grows to about 1e-9."""
    assert set(a) == set(b)
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=1e-6, atol=1e-8, msg=name)


LAYOUTS = {
    1: ["dino", "mae", "simclr", "simclr+recompute+cache", "simclr+compile"],
    2: ["dino+fsdp", "mae+fsdp+recompute", "simclr+fsdp+cache", "mae+fsdp+compile"],
    4: ["dino+fsdp+hybrid+cache"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    for world, jobs in LAYOUTS.items():
        start(folder, world, *jobs)
    return folder


@pytest.mark.parametrize("job", [job for jobs in LAYOUTS.values() for job in jobs if "+" in job])
def test_every_layout_ends_where_one_process_ends(runs, job):
    whole, found = state(runs / job.split("+")[0]), state(runs / job)
    assert_close(whole, found)
    files = list(Checkpoints(runs / job / "checkpoints").path(STEPS).glob("state-*"))
    assert len(files) == (2 if "fsdp" in job else 0)


def test_sharded_checkpoints_continue_with_other_ranks_and_back(runs, tmp_path):
    """2 sharded ranks -> 1 process -> 2 sharded ranks, each from step 3."""
    job = "dino+fsdp"
    shutil.copytree(runs / job, tmp_path / job)
    for world in (1, 2):
        shutil.rmtree(Checkpoints(tmp_path / job / "checkpoints").path(STEPS))
        start(tmp_path, world, job)
        assert_close(state(runs / "dino"), state(tmp_path / job))
