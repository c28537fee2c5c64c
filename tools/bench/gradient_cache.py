"""The gradient cache: is it exact, what memory does it save, what time does it cost?

    uv run python tools/bench/gradient_cache.py [--domain text] [--recipe simcse]
        [--batch-size 512] [--pieces 1 2 4 8 16] [--set encoder.depth=2 ...] [--no-ranks]

A recipe's own method on the domain's embedded data, one batch whole and in ever more pieces:

- exact    every gradient of the first step in float64, beside that of the whole batch: the largest
           difference of any of them, over the largest gradient. The rows with two ranks take the
           most pieces on each of two processes (gloo), replicated and sharded.
- memory   how far the resident set of a process of its own grows over three steps in float32
           (measured as `tools/bench/planner.py` does)
- time     CPU seconds of a step, the median of the same three

Reading is not part of it: all batches are made first.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from resident import MIB, answer, apart, grown, start_counting

STEPS = 3
RANKS = 2


def exact(given: argparse.Namespace, pieces: int, out: Path) -> None:
    """Writes the float64 gradients of one step; rank 0 of several writes."""
    import torch.distributed as dist
    from safetensors.torch import save_file

    from ssl_core.distributed import rank
    from ssl_core.engine.shards import full

    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    step = Step(given, pieces, double=True)
    step()
    # Gathering a split gradient is work of all ranks.
    found = {name: full(p.grad) for name, p in step.method.named_parameters() if p.grad is not None}
    if rank() == 0:
        save_file({name: grad.contiguous() for name, grad in found.items()}, out)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def cost(given: argparse.Namespace, pieces: int) -> dict[str, float]:
    """Bytes the process grows by, and CPU seconds of a step."""
    step = Step(given, pieces, double=False)
    before = start_counting()
    seconds = []
    for _ in range(STEPS):
        began = time.process_time()
        step()
        seconds.append(time.process_time() - began)
        step.method.zero_grad()
    return {"bytes": grown(before), "seconds": statistics.median(seconds)}


class Step:
    """The method of a recipe with its batches; a call leaves the gradients of one step."""

    def __init__(self, given: argparse.Namespace, pieces: int, *, double: bool) -> None:
        import torch

        from ssl_core import api
        from ssl_core.data import Loader, Stream
        from ssl_core.distributed import rank, world_size
        from ssl_core.engine.gradient_cache import GradientCache
        from ssl_core.engine.gradients import Accumulation
        from ssl_core.engine.parallelize import parallelize
        from ssl_core.runs.folder import resolve
        from ssl_core.runs.parts import build_parts, fitted_reader, split_data

        torch.set_num_threads(1)
        domain = resolve(f"ssl_{given.domain}.domain:{given.domain.upper()}")
        settings = [*given.set, f"train.accumulate={pieces}", f"train.parallel={given.parallel}"]
        recipe = api.build_recipe(
            domain, given.recipe, batch_size=given.batch_size, settings=settings
        )
        split = split_data(domain, recipe.data)
        reader = fitted_reader(domain, split.train, recipe.data)
        parts = build_parts(domain, recipe, reader, records=len(split.train))
        self.method = parts.method.double() if double else parts.method
        self.method.train()
        if double:
            torch.set_default_dtype(torch.float64)
        model = parallelize(self.method, recipe.train, recipe.optimizer, torch.device("cpu"))
        self.method.before_step(0, STEPS)
        kind = GradientCache if pieces > 1 else Accumulation
        self.gradients = kind(model, self.method, recipe.train)
        self.number = 0
        stream = Stream(
            len(split.train), given.batch_size, 0, rank(), world_size(), accumulate=pieces
        )
        steps = 1 if double else STEPS
        with Loader(split.train, reader, stream, workers=0, cache="none") as loader:
            self.batches = iter(list(loader.batches(0, steps)))

    def __call__(self) -> None:
        self.gradients(self.batches, self.number)
        self.number += 1


def difference(whole: Path, parts: Path) -> float:
    """The largest difference of two files of gradients, over the largest gradient."""
    from safetensors.torch import load_file

    one, other = load_file(whole), load_file(parts)
    if set(one) != set(other):
        sys.exit(f"other parameters have gradients: {sorted(set(one) ^ set(other))}")
    largest = max(float(grad.abs().max()) for grad in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / largest


def _exact_apart(words: list[str], pieces: int, out: Path, ranks: int = 1) -> None:
    launch = [sys.executable]
    if ranks > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [*launch, __file__, *words, "--apart", str(pieces), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{pieces} pieces, {ranks} ranks: {done.stderr[-3000:]}")


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", default="text")
    parser.add_argument("--recipe", default="simcse")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--pieces", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-ranks", action="store_true", help="leave out the rows of two ranks")
    for hidden, kind in (("--apart", int), ("--out", Path), ("--parallel", str)):
        default: Any = "ddp" if hidden == "--parallel" else None
        parser.add_argument(hidden, type=kind, default=default, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments_of()
    if given.apart:
        if given.out:
            exact(given, given.apart, given.out)
        else:
            answer(cost(given, given.apart))
        return
    words = ["--domain", given.domain, "--recipe", given.recipe]
    words += ["--batch-size", str(given.batch_size)] + (["--set", *given.set] * bool(given.set))
    print(f"{given.domain} {given.recipe}, {given.batch_size} samples a step")
    print(f"{'pieces':>22}{'gradient off by':>18}{'memory':>12}{'CPU a step':>14}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.safetensors"
        _exact_apart(words, 1, whole)
        for pieces in given.pieces:
            found = Path(folder) / f"{pieces}.safetensors"
            _exact_apart(words, pieces, found)
            spent = apart(__file__, [*words, "--apart", str(pieces)])
            print(
                f"{pieces:>22}{difference(whole, found):>18.1e}{spent['bytes'] / MIB:>8.0f} MiB"
                f"{spent['seconds']:>12.2f} s",
                flush=True,
            )
        for parallel in [] if given.no_ranks else ["ddp", "fsdp"]:
            found = Path(folder) / f"{parallel}.safetensors"
            _exact_apart([*words, "--parallel", parallel], max(given.pieces), found, RANKS)
            label = f"2 ranks x {max(given.pieces)}, {parallel}"
            print(f"{label:>22}{difference(whole, found):>18.1e}", flush=True)


if __name__ == "__main__":
    main()
