"""One trial of every fault that needs no launcher; `tools/faults.py` runs them in numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[1] / "tools/faults.py"


def test_broken_runs_end_in_the_bits_of_an_unbroken_one():
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOOL), "--short", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    rows = json.loads(done.stdout)["rows"]
    assert done.returncode == 0, done.stderr
    assert len(rows) >= 11
    for name, trials, survived, identical in rows:
        assert trials == survived == identical == 1, name
