"""Whole training steps on one device: samples a second, MFU, data wait, memory, share of views.

    uv run python tools/bench/gpu.py [--device cuda] [--cases simclr_vit_s ...] [--set KEY=VALUE]
    uv run --group peers python tools/bench/gpu.py --views      # views alone, beside kornia
    uv run python tools/bench/gpu.py --device cpu --tiny        # the same path, seconds on a laptop

Every case is a published recipe on random images of 256 pixels, which the loader keeps decoded in
memory after their first use, trained by the real `fit`, loader and views. Measured are the steps
after `--warm` and before the next log point, between two requests for a batch with the device idle
at both ends. On CUDA any operation there that makes the host wait for the device is an error
(`torch.cuda.set_sync_debug_mode`).

- MFU: FLOPs of a step as `ssl-vision plan` counts them (those of the method, not what is
  recomputed) over seconds and the device's dense peak at the recipe's precision.
- data wait: seconds the loop waited for a batch, as a share.
- memory: most bytes that torch's allocator held on CUDA; growth of the resident set on a CPU.
- views: seconds of making the views of one batch alone, as a share of a step.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import importlib.util
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from resident import MIB, forget_peak, resident

from ssl_core import api
from ssl_core.batch import Batch
from ssl_core.data import Loader, Stream
from ssl_core.engine.fit import fit
from ssl_core.methods.base import Method
from ssl_core.recipe import Recipe
from ssl_core.rng import Rng, generator
from ssl_core.runs.hardware import device as data_sheet
from ssl_core.runs.parts import build_parts, fitted_reader, split_data
from ssl_core.runs.planning import plan
from ssl_vision import VISION


@dataclass(frozen=True)
class Case:
    """A published recipe, the batch of one GPU and what differs; what a tiny form changes."""

    recipe: str
    batch: int
    settings: tuple[str, ...] = ()
    tiny: tuple[str, ...] = ()


CASES = {
    "simclr_vit_s": Case(
        "simclr_imagenet",
        512,
        ("encoder.name=vit_small_patch16", "optimizer.name=adamw", "optimizer.lr=1e-3"),
        ("method.hidden=32",),
    ),
    "dino_vit_s": Case(
        "dino_imagenet",
        128,
        (),
        ("views.local_size=16", "views.local_views=2", "method.prototypes=64", "method.hidden=32"),
    ),
    "mae_vit_b": Case("mae_imagenet", 512, (), ("method.decoder_dim=32", "method.decoder_depth=1")),
    "mae_vit_l": Case(
        "mae_imagenet",
        256,
        ("encoder.name=vit_large_patch16",),
        ("method.decoder_dim=32", "method.decoder_depth=1"),
    ),
}
SMALL = ("views.size=32", "encoder.name=vit_nano_patch8", "train.precision=fp32")
"""What every tiny form has."""


def images(folder: Path, count: int, side: int) -> Path:
    """Random uint8 images `[side, side, 3]` as array files; the loader keeps them in memory."""
    for number in range(count):
        made = generator("gpu bench", number).integers(0, 256, (side, side, 3), np.uint8)
        np.save(folder / f"{number:06}.npy", made)
    return folder


def recipe_of(case: Case, data: Path, given: argparse.Namespace) -> Recipe:
    """The recipe of a case on these images; only the last step is a log point."""
    steps = given.warm + given.steps + 1
    settings = [*case.settings, *(SMALL + case.tiny if given.tiny else ())]
    settings += ["data.holdout=0.0", f"train.log_every={steps}", f"train.save_every={steps}"]
    return api.build_recipe(
        VISION,
        case.recipe,
        data=data,
        steps=steps,
        batch_size=8 if given.tiny else given.batch or case.batch,
        device=given.device,
        settings=[*settings, *given.set],
    )


class Watched:
    """The loader, with the clock read and waiting forbidden between two steps."""

    def __init__(self, loader: Loader, first: int, last: int) -> None:
        self.loader, self.first, self.last = loader, first, last
        self.times: list[float] = []
        self.waits: list[float] = []
        self.newest: Batch | None = None

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        for number, batch in enumerate(self.loader.batches(start, stop)):
            step, micro = divmod(number, self.loader.stream.accumulate)
            if micro == 0 and step in (self.first, self.last):
                self._mark(begins=step == self.first)
            self.newest = batch
            yield batch

    def _mark(self, *, begins: bool) -> None:
        if self.loader.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        self.waits.append(self.loader.wait_seconds)
        if begins and self.loader.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")

    @property
    def seconds(self) -> float:
        """Of one step."""
        return (self.times[1] - self.times[0]) / (self.last - self.first)

    @property
    def waited(self) -> float:
        """Share of the time spent waiting for data."""
        return (self.waits[1] - self.waits[0]) / (self.times[1] - self.times[0])


def views_alone(method: Method, batch: Batch, calls: int) -> float:
    """Seconds of making the views of a batch, the median of `calls`."""

    def make(number: int) -> Any:
        with torch.no_grad():
            return method.views(batch, Rng.at(0, number, batch.ids))

    return timed(make, calls, batch.ids.device)


def timed(call: Callable[[int], Any], calls: int, device: torch.device) -> float:
    """Median seconds of a call after one that warms up, the device idle at both ends."""
    seconds = []
    for number in range(calls + 1):
        wait(device)
        began = time.perf_counter()
        call(number)
        wait(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory(device: torch.device) -> int:
    """Most bytes held since `forget`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident("VmHWM")


def forget(device: torch.device) -> int:
    """Starts counting anew; returns what does not count."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    forget_peak()
    return resident()


def measure(case: Case, data: Path, given: argparse.Namespace) -> dict[str, float]:
    """What one case reaches on the device."""
    device = torch.device(given.device)
    recipe = recipe_of(case, data, given)
    once = ["train.accumulate=1", "train.checkpointing=false"]  # FLOPs of the method alone
    counted = api.build_recipe(VISION, recipe, settings=once)
    split = split_data(VISION, recipe.data)
    reader = fitted_reader(VISION, split.train, recipe.data)
    planned = plan(VISION, counted, gpu="auto" if device.type == "cuda" else "cpu")
    before = forget(device)
    method = build_parts(VISION, recipe, reader, records=len(split.train)).method
    train = recipe.train
    stream = Stream(
        len(split.train), train.batch_size, seed=train.seed, accumulate=train.accumulate
    )
    workers = recipe.data.workers
    with (
        Loader(split.train, reader, stream, device=device, workers=workers) as loader,
        tempfile.TemporaryDirectory() as out,
    ):
        watched = Watched(loader, given.warm, given.warm + given.steps)
        fit(
            method,
            watched,
            train=train,
            optimizer=recipe.optimizer,
            out=Path(out),
            device=device,
        )
    used = memory(device) - before
    assert watched.newest is not None
    making = views_alone(method, watched.newest, given.steps)
    kind = data_sheet(planned["gpu"]["name"])
    known = (kind.name == "cpu") == (device.type == "cpu")  # a GPU may have no data sheet here
    peak = kind.flops(train.precision) if known else math.nan
    return {
        "samples a second": train.batch_size / watched.seconds,
        "ms a step": 1000 * watched.seconds,
        "MFU %": 100 * planned["flops"] / watched.seconds / peak,
        "data wait %": 100 * watched.waited,
        "memory MiB": used / MIB,
        "views %": 100 * making / watched.seconds,
    }


def views_only(given: argparse.Namespace) -> Iterator[tuple[str, dict[str, float]]]:
    """SimCLR's and DINO's views of one batch, and kornia's of the first."""
    device = torch.device(given.device)
    side, size, count = (64, 32, 8) if given.tiny else (256, 224, given.batch or 256)
    raw = generator("gpu bench").integers(0, 256, (count, 3, side, side), np.uint8)
    data = torch.from_numpy(raw).to(device).contiguous(memory_format=torch.channels_last)
    ids = torch.arange(count, device=device)
    spec = {
        "channels": 3,
        **dict.fromkeys(("size", "height", "width"), side),
        "dtype": "uint8",
        "range": [0.0, 255.0],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    crops = {"size": size, "local_size": size // 2, "local_views": 2 if given.tiny else 8}
    for policy, options in {"simclr": {"size": size}, "dino": crops}.items():
        views = VISION.create_views(policy, spec, options)
        batch = Batch(data, ids, ids)
        seconds = timed(lambda n: views(batch, Rng.at(0, n, ids)), given.steps, device)  # noqa: B023
        yield f"{policy}, ours", {"images a second": count / seconds, "ms": 1000 * seconds}
    if importlib.util.find_spec("kornia"):
        seconds = timed(lambda _: kornia_simclr(data, size), given.steps, device)
        yield "simclr, kornia", {"images a second": count / seconds, "ms": 1000 * seconds}


def kornia_simclr(data: torch.Tensor, size: int) -> list[Any]:
    """kornia's two views of a float batch, every sample with its own draw."""
    import kornia.augmentation as k

    chain = k.AugmentationSequential(
        k.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        k.RandomHorizontalFlip(),
        k.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8, same_on_batch=False),
        k.RandomGrayscale(p=0.2),
        k.RandomGaussianBlur((23, 23), (0.1, 2.0), p=0.5),
        data_keys=["input"],
    )
    return [chain(data.float() / 255) for _ in range(2)]


def show(name: str, found: dict[str, float]) -> None:
    numbers = ", ".join(f"{title} {value:.4g}" for title, value in found.items())
    print(f"{name:16}{numbers}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--warm", type=int, default=20, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, default=40, help="steps on the clock")
    parser.add_argument("--batch", type=int, help="samples a step, instead of the case's")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--tiny", action="store_true", help="networks and images of a laptop's size"
    )
    parser.add_argument("--views", action="store_true", help="views alone")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of the peers, and of operations without a fixed order
    if given.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    if given.views:
        for name, found in views_only(given):
            show(name, found)
        return
    with tempfile.TemporaryDirectory() as folder:
        count, side = (32, 48) if given.tiny else (given.images, 256)
        data = images(Path(folder), count, side)
        for name in given.cases:
            show(name, measure(CASES[name], data, given))


if __name__ == "__main__":
    main()
