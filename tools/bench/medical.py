"""Views of volumes against MONAI's dictionary transforms: the same chain, timed turn by turn.

    uv run python tools/bench/medical.py --rounds 5 --batch 8 --size 64

Both make one crop a scan with rotation, zoom and flips, then bias field, gamma, contrast and noise,
each always on, from the same int16 blocks. Processor time is counted and rounds alternate, so that
a busy machine slows both; what is reported is the median of the ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time

import ssl_core.environment  # noqa: F401  thread settings stand before torch is imported

import torch  # isort: skip
from monai import transforms as mt

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_medical.blocks import Blocks
from ssl_medical.prepare import SCALE
from ssl_medical.views import policies


def monai_chain(size: int) -> mt.Compose:
    """Dictionary transforms of one sample, as MONAI's tutorials write them."""
    keys = ["image"]
    return mt.Compose(
        [
            mt.ScaleIntensityRanged(keys, 0, SCALE, 0.0, 1.0),
            mt.RandFlipd(keys, prob=0.5, spatial_axis=0),
            mt.RandAffined(
                keys,
                prob=1.0,
                rotate_range=[0.17] * 3,
                scale_range=[0.2] * 3,
                spatial_size=(size,) * 3,
                padding_mode="zeros",
            ),
            mt.RandBiasFieldd(keys, prob=1.0, coeff_range=(0.0, 0.3)),
            mt.RandAdjustContrastd(keys, prob=1.0, gamma=(0.5, 2.0)),
            mt.RandScaleIntensityd(keys, prob=1.0, factors=0.25),
            mt.RandGaussianNoised(keys, prob=1.0, std=0.1),
            mt.NormalizeIntensityd(keys, subtrahend=0.4, divisor=0.3),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=64)
    given = parser.parse_args()
    block = given.size + given.size // 4
    data = torch.randint(0, SCALE, (given.batch, 1, *[block] * 3), dtype=torch.int16)
    zeros = torch.zeros(given.batch, 3, dtype=torch.int64)
    ids = torch.arange(given.batch)
    batch = Batch(Blocks(data, zeros, zeros + block), ids, ids)
    spec = {
        "channels": 1, "axes": 3, "block": [block] * 3, "spacing": [1.0] * 3, "mean": [0.4],
        "std": [0.3],
    }  # fmt: skip
    policy = policies.pairs(
        spec, size=given.size, views=1, scale=(0.65, 1.0), flip=(0.5, 0.0, 0.0),
        bias=1.0, gamma=1.0, contrast=1.0, noise=1.0, blur=0.0,
    )  # fmt: skip
    theirs = monai_chain(given.size)

    def ours(step: int) -> None:
        policy(batch, Rng.at(0, step, ids))

    def monai(step: int) -> None:
        torch.stack([theirs({"image": x})["image"] for x in data])

    spent: dict[str, list[float]] = {"ours": [], "monai": []}
    for step in range(given.rounds + 1):
        for name, make in (("ours", ours), ("monai", monai)):
            began = time.process_time()
            make(step)
            if step:  # the first round warms up
                spent[name].append(time.process_time() - began)
    for name, seconds in spent.items():
        print(f"{name:6} {1000 * statistics.median(seconds) / given.batch:8.1f} ms a view")
    ratio = statistics.median(m / o for m, o in zip(spent["monai"], spent["ours"], strict=True))
    print(f"MONAI takes {ratio:.1f} times as long ({given.rounds} interleaved rounds)")


if __name__ == "__main__":
    main()
