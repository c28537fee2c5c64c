"""Runs killed through the command line end in the bits of one never interrupted."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEPS = 24
SETTINGS = [
    "train.log_every=1",
    "train.save_every=5",
    "encoder.widths=[8,16]",
    "method.hidden=16",
    "method.dim=8",
    "views.size=24",
]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def command(data: Path, out: Path, *settings: str) -> list[str]:
    base = [sys.executable, "-m", "ssl_vision", "pretrain", "--data", str(data), "--out", str(out)]
    base += ["--steps", str(STEPS), "--batch-size", "16", "--json"]
    for setting in (*SETTINGS, *settings):
        base += ["--set", setting]
    return base


def logged_steps(out: Path) -> int:
    path = out / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def interrupted(argv: list[str], out: Path, *, after: int, with_signal: int) -> int:
    """Starts a run, signals it once `after` steps were logged, and returns its exit code."""
    process = subprocess.Popen(argv, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while logged_steps(out) < after and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(with_signal)
    _, errors = process.communicate(timeout=240)
    assert logged_steps(out) >= after, errors.decode()[-2000:]
    return process.returncode


def finish(argv: list[str]) -> dict:
    done = subprocess.run(argv, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def weights(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interruption") / "samples"
    subprocess.run(
        [sys.executable, "-m", "ssl_vision", "samples", str(folder), "--count", "100"],
        check=True,
        env=ENV,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def uninterrupted(data):
    out = data.parent / "whole"
    finish(command(data, out))
    return weights(out)


def test_sigkill_mid_epoch_with_other_workers(data, uninterrupted, tmp_path):
    out = tmp_path / "run"
    first = command(data, out, "data.workers=2")
    code = interrupted(first, out, after=8, with_signal=signal.SIGKILL)
    assert code == -signal.SIGKILL
    # 80 training images in batches of 16: steps 5 to 10 lie inside the second epoch.
    again = command(data, out, "data.workers=0")
    interrupted(again, out, after=13, with_signal=signal.SIGKILL)
    finish(command(data, out, "data.workers=2", "data.worker_kind=process"))
    assert weights(out) == uninterrupted


def test_sigterm_saves_and_exits_143(data, uninterrupted, tmp_path):
    out = tmp_path / "run"
    code = interrupted(command(data, out), out, after=7, with_signal=signal.SIGTERM)
    assert code == 143
    saved = max(int(p.name.removeprefix("step-")) for p in (out / "checkpoints").glob("step-*"))
    assert saved >= 7
    finish(command(data, out))
    assert weights(out) == uninterrupted
