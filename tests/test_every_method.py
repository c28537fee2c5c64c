"""Every core method: two ranks end where one does, a stopped run in the bits of a whole one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from every_method import CASES, STOP, train
from ssl_core.errors import Preempted
from ssl_core.methods import METHODS

SCRIPT = str(Path(__file__).with_name("every_method_training.py"))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """The folder in which two ranks trained all methods."""
    out = tmp_path_factory.mktemp("ranks")
    running = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(out), "2", str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=600)[1] for process in running]
    assert not any(process.returncode for process in running), errors[0][-3000:]
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The final state of each method, trained once in one process when first asked for."""
    out, known = tmp_path_factory.mktemp("whole"), {}

    def final(name):
        if name not in known:
            known[name] = train(name, out / name).state_dict()
        return known[name]

    return final


def test_no_core_method_is_left_out():
    assert set(CASES) == set(METHODS)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_end_where_one_process_ends(name, ranks, whole):
    two = load_file(ranks / f"{name}.safetensors")
    for key, tensor in whole(name).items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-8, atol=1e-10, msg=key)


@pytest.mark.parametrize("name", CASES)
def test_a_stopped_run_ends_in_the_same_bits(name, whole, tmp_path):
    with pytest.raises(Preempted):
        train(name, tmp_path, stop=STOP + 1)
    resumed = train(name, tmp_path).state_dict()
    for key, tensor in whole(name).items():
        assert torch.equal(resumed[key], tensor), key
