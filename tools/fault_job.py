"""The training that `faults.py` breaks: small, but with all that a run has.

Batch norm, an EMA teacher, fused AdamW with clipping, noisy views, a loader with workers, and
checkpoints every few steps. Run alone it is one rank of a torchrun job:

    torchrun --nproc-per-node 2 tools/fault_job.py OUT DATA [--crash STEP] [--stall STEP]
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_core import recipe
from ssl_core.batch import Batch, Record, Source
from ssl_core.data import Loader, Stream, open_tars
from ssl_core.distributed import rank, world_size
from ssl_core.engine.fit import fit
from ssl_core.engine.parallel import process_group
from ssl_core.errors import CorruptSample, SSLError
from ssl_core.methods.byol import BYOL
from ssl_core.testing.vectors import VECTORS, MLPEncoder, NoisyViews, VectorReader

STEPS = 40
BATCH = 16
ROWS = 200
DIM = 24

ADAMW = recipe.Optimizer(lr=1e-2, clip=1.0)
# Adam turns the rounding of a gradient that is zero (a bias before batch norm) into whole steps.
SGD = recipe.Optimizer(name="sgd", lr=0.05, clip=1.0)

Hook = Callable[[int, Loader], None]


class ByteReader(VectorReader):
    """Vectors as the members of a tar shard."""

    def decode(self, record: Record) -> torch.Tensor:
        try:
            vector = np.frombuffer(record.payload, dtype=np.float32)
        except ValueError as error:
            raise CorruptSample(str(error)) from error
        return torch.from_numpy(vector.copy())


class DoubleReader(VectorReader):
    """The same numbers in float64, where the order of sums hardly shows."""

    def decode(self, record: Record) -> torch.Tensor:
        return super().decode(record).double()


class Hooked:
    """A loader with something that happens before each step, and steps whose data is NaN."""

    def __init__(self, loader: Loader, hook: Hook | None, poisoned: frozenset[int]) -> None:
        self.loader, self.hook, self.poisoned = loader, hook, poisoned

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        for step, batch in enumerate(self.loader.batches(start, stop), start):
            if self.hook is not None:
                self.hook(step, self.loader)
            if step in self.poisoned:
                batch = Batch(torch.full_like(batch.data, float("nan")), batch.ids, batch.index)
            yield batch


def write_data(folder: Path) -> None:
    """Vectors as arrays, and the same in two tar shards."""
    folder.mkdir(parents=True, exist_ok=True)
    VECTORS.samples(folder, count=ROWS, seed=0)
    vectors = np.load(folder / "vectors.npy")
    for number, part in enumerate(np.split(vectors, [170])):
        with tarfile.open(folder / f"shard-{number}.tar", "w") as tar:
            for row, vector in enumerate(part):
                member = tarfile.TarInfo(f"{number}-{row:04d}.f32")
                member.size = vector.nbytes
                tar.addfile(member, io.BytesIO(vector.tobytes()))


def _breaking_shards(data: Path) -> Source:
    """Two tar shards, of which the second becomes unreadable once it was opened."""
    own = Path(tempfile.mkdtemp(dir=data))
    shards = [Path(shutil.copy(shard, own)) for shard in sorted(data.glob("shard-*.tar"))]
    source = open_tars(shards, (".f32",))
    shards[1].write_bytes(bytes(shards[1].stat().st_size))
    return source


def job(
    out: Path,
    data: Path,
    *,
    workers: int = 0,
    kind: Any = "thread",
    hook: Hook | None = None,
    poisoned: frozenset[int] = frozenset(),
    double: bool = False,
    shards: bool = False,
    pause: float = 0.002,
) -> None:
    """Trains what is left of the run in `out`, on the ranks of the process group."""
    source: Source = VECTORS.open(recipe.Data(path=str(data)))
    reader = DoubleReader(DIM) if double else VectorReader(DIM)
    if shards:
        source, reader = _breaking_shards(data), ByteReader(DIM)
    train = recipe.Train(steps=STEPS, batch_size=BATCH, log_every=10, save_every=5, keep=3)
    stream = Stream(len(source), BATCH, seed=0, rank=rank(), world=world_size())
    loader = Loader(
        source, reader, stream, workers=workers, worker_kind=kind, cache="none", max_corrupt=1.0
    )

    def paced(step: int, loader: Loader) -> None:
        time.sleep(pause)
        if hook is not None:
            hook(step, loader)

    torch.set_num_threads(1)
    torch.manual_seed(3)
    method = BYOL(MLPEncoder({"dim": DIM}), NoisyViews({"dim": DIM}), hidden=16, dim=8)
    with loader:
        fit(
            method.double() if double else method,
            Hooked(loader, paced, poisoned),
            train=train,
            optimizer=SGD if double else ADAMW,
            out=out,
            identity={"data": source.fingerprint()},
        )


def _once(out: Path, name: str) -> bool:
    """True for the first attempt that comes by; the mark outlives the process."""
    try:
        (out / f".{name}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def main() -> int:
    """One rank under a launcher."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--crash", type=int, action="append", default=[])
    parser.add_argument("--stall", type=int)
    parser.add_argument("--pause", type=float, default=0.002)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    def hook(step: int, loader: Loader) -> None:
        if rank() != 1:
            return
        for number, at in enumerate(given.crash):
            if step >= at and _once(given.out, f"crashed-{number}"):
                os.kill(os.getpid(), signal.SIGKILL)
        if given.stall is not None and step == given.stall and _once(given.out, "stalled"):
            os.kill(os.getpid(), signal.SIGSTOP)

    timeout = 1800.0 if given.stall is None else 3.0
    try:
        with process_group(torch.device("cpu"), timeout=timeout):
            job(given.out, given.data, workers=2, kind="process", hook=hook, pause=given.pause)
    except SSLError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
