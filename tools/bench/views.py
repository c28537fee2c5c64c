"""Image views: ours against lightly, torchvision v2, Pillow and kornia, interleaved in one run.

    uv run --group peers python tools/bench/views.py [--rounds 5] [--cases simclr224 ...]
    uv run --group peers python tools/bench/views.py --device cuda --cases simclr224

One thread; all candidates take their turn in every round, and the figure is images per CPU second
(median over rounds), so that neighbours on the machine weigh on none of them. On another device it
is images per second of wall time, each call waited for; ours, torchvision's tensors and kornia run
there, Pillow's chains stay on the CPU, and a batch has 256 images. Every candidate
makes the same views of the same images with the same probabilities: crop, flip, colour jitter
(0.8, 0.8, 0.8, 0.2 with p = 0.8), grey 0.2, blur 0.5 at 224 pixels. DINO's case makes 2 x 224 and
8 x 96; lightly keeps its own blur and solarisation per view there.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ssl_core.batch import Batch
from ssl_core.rng import Rng, generator
from ssl_vision import VISION

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Candidate = Callable[[], Any]


def images(count: int, side: int) -> Tensor:
    """Coloured, textured uint8 images `[B, 3, side, side]`, channels last in memory."""
    out = []
    for number in range(count):
        random = generator("bench view", number)
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
        noise = random.integers(-24, 25, (side, side, 3))
        out.append(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2)


def ours(data: Tensor, policy: str, **options: Any) -> Candidate:
    """A view policy on the whole batch."""
    side = data.shape[2]
    spec = {
        "channels": 3,
        "size": side,
        "height": side,
        "width": side,
        "dtype": "uint8",
        "range": [0.0, 255.0],
        "mean": list(MEAN),
        "std": list(STD),
    }
    views = VISION.create_views(policy, spec, options)
    ids = torch.arange(len(data), device=data.device)
    batch = Batch(data, ids, ids)
    steps = iter(range(1_000_000))
    return lambda: views(batch, Rng.at(0, next(steps), ids))


def both_ways(make: Candidate, device: torch.device) -> dict[str, Candidate]:
    """Ours; on a GPU by torch's calls and by Triton kernels."""
    if device.type == "cpu":
        return {"ours": make}

    def asked(value: str) -> Candidate:
        def run() -> Any:
            os.environ["SSL_TRITON"] = value
            return make()

        return run

    return {"ours": asked("1"), "ours by torch's calls": asked("0")}


def colour_and_blur(kernel: int, *, blur: float) -> list[Any]:
    """SimCLR's colour chain in torchvision's words."""
    chain = [
        v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
        v2.RandomGrayscale(0.2),
    ]
    return [*chain, v2.RandomApply([v2.GaussianBlur(kernel)], p=blur)] if blur else chain


def torchvision_tensors(data: Tensor, size: int, *, blur: float) -> Candidate:
    """torchvision v2 on uint8 tensors, sample by sample."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, antialias=True),
            v2.RandomHorizontalFlip(),
            *colour_and_blur(23, blur=blur),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return lambda: [torch.stack([transform(image) for image in data]) for _ in range(2)]


def pillow(data: Tensor, size: int, *, blur: float) -> Candidate:
    """torchvision's transforms on Pillow images with bicubic crops, as solo-learn has them."""
    from lightly.transforms import GaussianBlur

    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in data]
    chain: list[Any] = [
        v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
        v2.RandomGrayscale(0.2),
    ]
    if blur:
        chain.append(GaussianBlur(prob=blur, sigmas=(0.1, 2.0)))
    finish = [v2.RandomHorizontalFlip(), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    transform = v2.Compose([*chain, *finish, v2.Normalize(MEAN, STD)])
    return lambda: [torch.stack([transform(image) for image in pictures]) for _ in range(2)]


def kornia(data: Tensor, size: int, *, blur: float) -> Candidate:
    """kornia on the whole float batch, every sample with its own draw."""
    import kornia.augmentation as k

    chain = [
        k.RandomResizedCrop((size, size), scale=(0.08, 1.0)),
        k.RandomHorizontalFlip(),
        k.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8, same_on_batch=False),
        k.RandomGrayscale(p=0.2),
    ]
    if blur:
        chain.append(k.RandomGaussianBlur((23, 23), (0.1, 2.0), p=blur))
    chain.append(k.Normalize(torch.tensor(MEAN), torch.tensor(STD)))
    transform = k.AugmentationSequential(*chain, data_keys=["input"])
    return lambda: [transform(data.float() / 255) for _ in range(2)]


def lightly(data: Tensor, name: str, **options: Any) -> Candidate:
    """A lightly transform, image by image."""
    import lightly.transforms as t

    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in data]
    transform = getattr(t, name)(**options)
    return lambda: [transform(image) for image in pictures]


def simclr(
    side: int, size: int, count: int, blur: float, device: torch.device
) -> dict[str, Candidate]:
    """Two SimCLR views of `count` images."""
    data = images(count, side)
    there = data.to(device)
    strength = {"cj_strength": 1.0, "gaussian_blur": blur, "input_size": size}
    return {
        **both_ways(ours(there, "simclr", size=size, strength=1.0, blur=blur), device),
        "lightly": lightly(data, "SimCLRTransform", **strength),
        "Pillow (solo-learn's chain)": pillow(data, size, blur=blur),
        "torchvision v2, tensors": torchvision_tensors(there, size, blur=blur),
        "kornia": kornia(there, size, blur=blur),
    }


def dino(count: int, device: torch.device) -> dict[str, Candidate]:
    """Two views at 224 and eight at 96."""
    data = images(count, 256)
    return {
        **both_ways(ours(data.to(device), "dino", size=224, local_size=96, local_views=8), device),
        "lightly": lightly(data, "DINOTransform", n_local_views=8),
    }


Make = Callable[[int, torch.device], dict[str, Candidate]]
CASES: dict[str, tuple[int, Make]] = {
    "simclr224": (32, lambda count, device: simclr(256, 224, count, 0.5, device)),
    "simclr32": (512, lambda count, device: simclr(32, 32, count, 0.0, device)),
    "simclr24": (64, lambda count, device: simclr(40, 24, count, 0.0, device)),
    "dino224": (16, dino),
}
_ON_DEVICE = 256
"""Images of a batch where launching kernels would otherwise be all that is measured."""


def measure(
    candidates: dict[str, Candidate], rounds: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of a call of each, taken in turn: of CPU time, or of wall time elsewhere."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for number in range(rounds + 1):
        for name, run in candidates.items():
            began = clock()
            run()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            if number:  # the first round warms up
                seconds[name].append(clock() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the peers
    per = "CPU second" if given.device.type == "cpu" else f"second on {given.device}"
    print(f"| case | candidate | images per {per} | ours is faster by |")
    print("|---|---|---|---|")
    for case in given.cases:
        count, make = CASES[case]
        count = count if given.device.type == "cpu" else max(count, _ON_DEVICE)
        found = measure(make(count, given.device), given.rounds, given.device)
        for name, seconds in found.items():
            ratio = "" if name == "ours" else f"{seconds / found['ours']:.1f} x"
            print(f"| {case} | {name} | {count / seconds:.0f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
