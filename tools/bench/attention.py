"""Self-attention on a CPU, in float32 and bfloat16: ours against torch's fused operator.

    uv run python tools/bench/attention.py [--rounds 9]

One thread, candidates in turn; CPU milliseconds of a forward and backward pass from one linear
layer's `[B, N, 3, heads, d]` to its gradient, median over rounds.
"""

from __future__ import annotations

# Thread settings must stand before anything imports torch.
import ssl_core.environment  # noqa: F401  isort: skip

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.networks.attention import attention

SHAPES = [
    (64, 7, 3, 32),  # MAE's encoder of the embedded images
    (64, 17, 4, 16),  # and its decoder
    (1024, 17, 4, 12),  # I-JEPA's predictor there
    (64, 37, 3, 32),
    (32, 65, 3, 64),
    (8, 197, 6, 64),  # ViT-S/16
    (4, 384, 8, 64),
    (2, 1025, 6, 64),
]
"""Rows, tokens, heads, width of a head."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

WAYS: dict[str, Callable[..., Tensor]] = {
    "ours": attention,
    "torch": F.scaled_dot_product_attention,
}


def step(way: Callable[..., Tensor], qkv: Tensor, weights: Tensor) -> float:
    """CPU milliseconds of one pass there and back."""
    began = time.process_time()
    out = way(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)
    torch.autograd.grad(out, qkv, weights)
    return 1000 * (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| numbers | rows | tokens | heads | width | ours | torch | ours is faster by |")
    print("|" + "---|" * 8)
    for name, dtype in DTYPES.items():
        for shape in SHAPES:
            mine, peer = compared(*shape, dtype=dtype, rounds=rounds)
            cells = [name, *map(str, shape), f"{mine:.2f}", f"{peer:.2f}", f"{peer / mine:.1f} x"]
            print("| " + " | ".join(cells) + " |", flush=True)


def compared(
    rows: int, count: int, heads: int, width: int, *, dtype: torch.dtype, rounds: int
) -> list[float]:
    """The median of each way at one shape, taken in turn."""
    qkv = torch.randn(rows, count, 3, heads, width, dtype=dtype, requires_grad=True)
    weights = torch.randn(rows, count, heads * width, dtype=dtype)
    turns = [
        {name: step(way, qkv, weights) for name, way in WAYS.items()}
        for _ in range(rounds + 1)  # the first warms up
    ][1:]
    return [statistics.median(turn[name] for turn in turns) for name in WAYS]


if __name__ == "__main__":
    main()
