"""The ways `faults.py` breaks a run; each leaves it for the same command to continue."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fault_job import STEPS, job
from ssl_core.engine import checkpoint, saver
from ssl_core.engine.checkpoint import Checkpoints
from ssl_core.errors import SSLError

LIMIT = 240
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
JOB = str(Path(__file__).with_name("fault_job.py"))


@dataclass
class Trial:
    """One run folder, the data, and chance."""

    out: Path
    data: Path
    chance: random.Random

    def step(self, low: int = 1, high: int = STEPS - 1) -> int:
        return self.chance.randrange(low, high)


def start(trial: Trial, *, world: int = 1, **options: Any) -> list[int]:
    """The job in forked processes, one a rank; returns their numbers."""
    meeting = tempfile.mktemp(dir=trial.data)
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            _child(trial, rank, world, meeting, options)
        children.append(pid)
    return children


def _child(trial: Trial, rank: int, world: int, meeting: str, options: dict[str, Any]) -> None:
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        if world > 1:
            init = f"file://{meeting}"
            dist.init_process_group("gloo", init_method=init, rank=rank, world_size=world)
        per_rank = {k: v(rank) if k == "poisoned" else v for k, v in options.items()}
        job(trial.out, trial.data, **per_rank)
        code = 0
    except SSLError as error:
        code = error.exit_code
    finally:
        os._exit(code)


def wait(children: list[int]) -> int:
    """The worst exit code; minus the signal for a killed process."""
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    return next((code for code in codes if code), 0)


def attempt(trial: Trial, **options: Any) -> int:
    """Runs the job until it ends, however it ends."""
    return wait(start(trial, **options))


def at(step: int, action: Callable[..., None]) -> Callable[..., None]:
    def hook(now: int, loader: Any) -> None:
        if now == step:
            action(loader)

    return hook


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# Faults: each breaks a run and lets it continue; the caller compares.


def killed_at_any_moment(trial: Trial) -> None:
    for _ in range(trial.chance.randrange(1, 4)):
        (child,) = start(trial)
        time.sleep(trial.chance.uniform(0.02, 0.5))
        os.kill(child, signal.SIGKILL)
        wait([child])


def killed_inside_a_write(trial: Trial) -> None:
    """Dies in the n-th call of a function that a checkpoint goes through."""
    places = [
        (saver, "write_tensors"),
        (saver, "crc32"),
        (saver, "sync"),
        (checkpoint, "write_json"),
        (checkpoint, "sync"),
        (checkpoint.os, "replace"),
        (checkpoint.shutil, "rmtree"),
    ]
    module, name = trial.chance.choice(places)
    calls, half = trial.chance.randrange(1, 6), trial.chance.random() < 0.5
    original = getattr(module, name)

    def deadly(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls -= 1
        if calls == 0:
            if name == "write_tensors" and half:
                original(*given, **named)
                os.truncate(given[0], os.path.getsize(given[0]) // 2)
            die()
        return original(*given, **named)

    setattr(module, name, deadly)
    try:
        attempt(trial)
    finally:
        setattr(module, name, original)


def stopped_by_sigterm(trial: Trial) -> None:
    code = attempt(trial, hook=at(trial.step(), stop), workers=2)
    assert code == 143, f"exit code {code}"


def other_workers(trial: Trial) -> None:
    first, second = trial.chance.sample([0, 1, 2, 3], 2)
    attempt(trial, workers=first, hook=at(trial.step(), die))
    attempt(trial, workers=max(1, second), kind="process", hook=at(trial.step(), die))


def corrupt_newest(trial: Trial) -> None:
    attempt(trial, hook=at(trial.step(11), stop))
    checkpoints = Checkpoints(trial.out / "checkpoints")
    files = sorted(checkpoints.path(checkpoints.steps()[-1]).iterdir())
    file = trial.chance.choice(files)
    data = bytearray(file.read_bytes())
    if trial.chance.random() < 0.5:
        file.write_bytes(data[: len(data) // 2])
    else:
        data[trial.chance.randrange(len(data) // 2)] ^= 255
        file.write_bytes(data)


def worker_killed(trial: Trial) -> None:
    def kill_one(loader: Any) -> None:
        for pid in loader._processes.pids[:1]:
            os.kill(pid, signal.SIGKILL)

    code = attempt(trial, hook=at(trial.step(), kill_one), workers=2, kind="process")
    assert code == 0, f"exit code {code}"


def disk_full(trial: Trial) -> None:
    """No file may grow past 2 kB for a while: writes fail in the middle, as on a full disk."""
    first = trial.step(3, STEPS - 12)
    last = first + trial.chance.randrange(4, 9)

    def quota(now: int, loader: Any) -> None:
        if now in (first, last):
            limit = 2000 if now == first else resource.RLIM_INFINITY
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    code = attempt(trial, hook=quota)
    assert code == 0, f"exit code {code}"


def disk_full_at_the_end(trial: Trial) -> None:
    def quota(loader: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

    code = attempt(trial, hook=at(trial.step(30), quota))
    assert code == 3, f"exit code {code}"


def small_disk(trial: Trial) -> None:
    """A tmpfs with room for one checkpoint and a half, filled for a while by someone else."""
    trial.out.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(trial.out)]
    subprocess.run(mounted, check=True, capture_output=True)
    filler, first = trial.out / "filler", trial.step(3, STEPS - 12)

    def fill(now: int, loader: Any) -> None:
        if now == first:
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass
        if now == first + 8:
            filler.unlink()

    code = attempt(trial, hook=fill)
    assert code == 0, f"exit code {code}"


def nan_on_one_rank(trial: Trial) -> None:
    poisoned = lambda rank: frozenset({9, 10} if rank == 1 else ())  # noqa: E731
    attempt(trial, world=2, poisoned=poisoned, hook=at(trial.step(12), stop))


def other_world(trial: Trial) -> None:
    first = trial.step(4, 18)
    attempt(trial, double=True, hook=at(first, stop))
    attempt(trial, double=True, world=2, hook=at(first + trial.step(4, 18), stop))


def unreadable_shard(trial: Trial) -> None:
    attempt(trial, shards=True, hook=at(trial.step(), die), workers=2)


def torchrun(trial: Trial, *options: str, restarts: int = 0) -> subprocess.Popen[bytes]:
    command = [*TORCHRUN, "2", "--max-restarts", str(restarts), JOB]
    command += [str(trial.out), str(trial.data), *options]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **quiet)  # type: ignore[call-overload,no-any-return]


def sigterm_to_torchrun(trial: Trial) -> None:
    launched = torchrun(trial, "--pause", "0.2")
    metrics, began = trial.out / "metrics.jsonl", time.monotonic()
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < began + LIMIT:
        time.sleep(0.05)
    launched.terminate()
    launched.wait(LIMIT)
    assert Checkpoints(trial.out / "checkpoints").steps()[-1] >= 10, "nothing was saved"


def rank_crash(trial: Trial) -> None:
    """Rank 1 dies twice; the launcher restarts all, and the job finishes by itself.

    Restarts to spare: on a busy machine gloo may fail to connect, which costs one, too.
    """
    first = trial.step(6, 18)
    crashes = ["--crash", str(first), "--crash", str(first + trial.step(6, 15))]
    code = torchrun(trial, *crashes, restarts=6).wait(LIMIT)
    assert code == 0, f"exit code {code}"


def stalled_rank(trial: Trial) -> None:
    """Rank 1 stops answering; the others give up after the time limit, and all start again."""
    stalled = ["--stall", str(trial.step(6))]
    code = torchrun(trial, *stalled, restarts=4).wait(LIMIT)
    assert code == 0, f"exit code {code}"


@dataclass(frozen=True)
class Fault:
    name: str
    trials: int
    break_it: Callable[[Trial], None]
    options: tuple[tuple[str, Any], ...] = ()
    """How the last, unbroken attempt and the reference run."""
    short: bool = True

    @property
    def setting(self) -> dict[str, Any]:
        return dict(self.options)


POISON = lambda rank: frozenset({9, 10})  # noqa: E731
TWO = (("world", 2),)
FAULTS = [
    Fault("SIGKILL at any moment", 32, killed_at_any_moment),
    Fault("SIGKILL inside a checkpoint write", 28, killed_inside_a_write),
    Fault("SIGTERM", 8, stopped_by_sigterm),
    Fault("other workers after SIGKILL", 6, other_workers),
    Fault("corrupt newest checkpoint", 10, corrupt_newest),
    Fault("loader worker killed", 5, worker_killed),
    Fault("disk full for a while (quota)", 6, disk_full),
    Fault("disk full at the end (quota)", 3, disk_full_at_the_end),
    Fault("disk full for a while (tmpfs)", 3, small_disk),
    Fault("unreadable shard", 4, unreadable_shard, (("shards", True),)),
    Fault("NaN on one of 2 ranks", 4, nan_on_one_rank, (*TWO, ("poisoned", POISON))),
    Fault("ranks 1 -> 2 -> 1", 4, other_world, (("double", True),)),
    Fault("SIGTERM through torchrun", 2, sigterm_to_torchrun, TWO, short=False),
    Fault("rank crash twice, torchrun restarts", 3, rank_crash, TWO, short=False),
    Fault("stalled rank, torchrun restarts", 2, stalled_rank, TWO, short=False),
]
