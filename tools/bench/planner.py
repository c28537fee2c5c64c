"""How well `plan` predicts memory: its numbers beside measured peaks.

    uv run python tools/bench/planner.py [--only NAME]

Every configuration trains three steps in a process of its own on this CPU: the real `fit`, loader
and views. Measured is the highest resident set of the process since just before the networks were
built (Linux keeps it: VmHWM, set back through /proc/self/clear_refs), less what was resident then,
and less the pages of files that came since, which are libraries' code and no memory of the run;
read when the loader is asked for the fourth batch, before a checkpoint is written. Large blocks are
given their own mappings (`resident.SHARP`). Predicted is the plan's total without its flat
reserve for the runtime. Both leave out the cache of decoded samples, which is switched off.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resident import MIB, answer, apart, grown, start_counting

# Name -> domain, arguments of `build_recipe`. The data are the domains' embedded samples.
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "SimCLR, ResNet-18, 2 x 64 px": (
        "vision",
        {
            "encoder": "resnet18",
            "batch_size": 32,
            "settings": ["views.size=64"],
        },
    ),
    "DINO, ViT-S/16, 2 x 224 + 4 x 96 px": (
        "vision",
        {
            "recipe": "dino_imagenet",
            "batch_size": 4,
            "settings": ["train.precision=fp32", "train.accumulate=1"],
        },
    ),
    "MAE, ViT-B/16, 224 px, bf16": (
        "vision",
        {"recipe": "mae_imagenet", "batch_size": 8, "settings": ["train.accumulate=1"]},
    ),
    "MAE, ViT-B/16, 224 px, recomputed": (
        "vision",
        {
            "recipe": "mae_imagenet",
            "batch_size": 16,
            "settings": [
                "train.accumulate=1",
                "train.checkpointing=true",
                "train.precision=fp32",
            ],
        },
    ),
    "BERT base, 8 documents": ("text", {"recipe": "mlm_bert_base", "batch_size": 8}),
    "SimCSE, gradient cache, 4 x 16 documents": (
        "text",
        {"batch_size": 64, "settings": ["train.accumulate=4"]},
    ),
    "SimCLR on video clips": ("video", {"batch_size": 16}),
    "VICReg on sounds": ("audio", {"method": "vicreg", "batch_size": 64}),
}
ALWAYS = ["data.cache=none", "data.workers=0", "train.steps=4"]


def _recipe(name: str) -> tuple[Any, Any]:
    from ssl_core import api
    from ssl_core.runs.folder import resolve

    domain, given = CONFIGURATIONS[name]
    found = resolve(f"ssl_{domain}.domain:{domain.upper()}")
    settings = [*given.get("settings", []), *ALWAYS]
    return found, api.build_recipe(found, **{**given, "settings": settings})


def predicted(name: str) -> dict[str, int]:
    """The plan's parts for this CPU, in bytes."""
    from ssl_core.runs.planning import plan

    domain, recipe = _recipe(name)
    parts: dict[str, int] = plan(domain, recipe, gpu="cpu")["memory"]["parts"]
    return {part: size for part, size in parts.items() if part != "runtime"}


def measured(name: str) -> int:
    """Growth of the resident set over three steps, in bytes; in a fresh process only."""
    import torch

    from ssl_core.data import Loader, Stream
    from ssl_core.engine.fit import fit
    from ssl_core.runs.parts import build_parts, fitted_reader, split_data

    torch.set_num_threads(1)
    domain, recipe = _recipe(name)
    split = split_data(domain, recipe.data)
    reader = fitted_reader(domain, split.train, recipe.data)
    _warm(torch)
    before = start_counting()
    found: list[int] = []

    class Watched:
        def batches(self, start: int, stop: int) -> Iterator[Any]:
            train = recipe.train
            stream = Stream(len(split.train), train.batch_size, accumulate=train.accumulate)
            with Loader(split.train, reader, stream, workers=0, cache="none") as loader:
                for number, batch in enumerate(loader.batches(start, stop)):
                    if number == 3 * train.accumulate:
                        found.append(grown(before))
                    yield batch

    method = build_parts(domain, recipe, reader, records=len(split.train)).method
    with tempfile.TemporaryDirectory() as folder:
        fit(method, Watched(), train=recipe.train, optimizer=recipe.optimizer, out=Path(folder))
    return found[0]


def _warm(torch: Any) -> None:
    """A view and a step of a small network: what the first ones import is there before the count.

    torch's optimisers alone are 30 MiB of objects, numba is 45.
    """
    from ssl_core.batch import Batch
    from ssl_core.ops.colour import Normalise
    from ssl_core.ops.pipeline import Augmentation
    from ssl_core.rng import Rng

    ids = torch.arange(2)
    small = Batch(torch.zeros(2, 3, 9, 9, dtype=torch.uint8), ids, ids)
    Augmentation(8, Normalise((0.5,) * 3, (0.2,) * 3))(small, Rng.at(0, 0, ids))
    x = torch.randn(2, 8, 16, 16, requires_grad=True)
    y = torch.nn.functional.conv2d(x, torch.randn(8, 8, 3, 3, requires_grad=True))
    q = y.flatten(2)
    torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    torch.optim.AdamW([x], fused=True).step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="configurations whose name holds this")
    parser.add_argument("--apart", choices=["predicted", "measured"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.apart:
        call = predicted if given.apart == "predicted" else measured
        answer(call(given.only))
        return
    print(f"{'configuration':42}{'predicted':>12}{'measured':>12}{'off by':>9}  largest parts, MiB")
    for name in CONFIGURATIONS:
        if given.only not in name:
            continue
        parts, peak = (
            apart(__file__, ["--only", name, "--apart", what]) for what in ("predicted", "measured")
        )
        total = sum(parts.values())
        top = sorted(parts, key=lambda part: -parts[part])[:3]
        shown = ", ".join(f"{part} {parts[part] / MIB:.0f}" for part in top)
        off = 100 * (total - peak) / peak
        print(
            f"{name:42}{total / MIB:8.0f} MiB{peak / MIB:8.0f} MiB{off:+8.1f}%  {shown}",
            flush=True,
        )


if __name__ == "__main__":
    main()
