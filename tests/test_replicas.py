"""Two gloo ranks under torchrun see what one process sees, and end where it ends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ssl_core.testing.vectors import VECTORS

SCRIPT = str(Path(__file__).with_name("replica_training.py"))
METHODS = ["simclr", "byol", "dino", "barlow_twins", "vicreg"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "data").mkdir()
    VECTORS.samples(folder / "data", count=70, seed=0)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command in ([SCRIPT], [*launcher, SCRIPT]):
        done = subprocess.run(
            [sys.executable, *command, str(folder)], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_see_the_same_samples_and_views(trained, method):
    one = load_file(trained / "world-1" / method / "views-0.safetensors")
    parts = [load_file(trained / "world-2" / method / f"views-{r}.safetensors") for r in (0, 1)]
    assert not set(parts[0]) & set(parts[1])
    two = parts[0] | parts[1]
    assert set(one) == set(two)
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_end_where_one_process_ends(trained, method):
    one = load_file(trained / "world-1" / method / "final.safetensors")
    two = load_file(trained / "world-2" / method / "final.safetensors")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_log_the_loss_of_the_whole_batch(trained, method):
    logs = [trained / f"world-{world}" / method / "metrics.jsonl" for world in (1, 2)]
    one, two = ([json.loads(line) for line in log.read_text().splitlines()] for log in logs)
    assert [r["step"] for r in one] == [r["step"] for r in two]
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-6)
