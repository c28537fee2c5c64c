"""What devices can do at best, by their makers' data sheets; this machine's CPU is measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from ssl_core.errors import unknown

GIB = 1024**3


@dataclass(frozen=True)
class Device:
    """Peak rates of one device: FLOP/s of dense products, bytes/s and bytes of its memory.

    `exchange` is what one device sends to others in bytes/s, `reserve` the bytes that a process
    needs there before it holds any tensor.
    """

    name: str
    bf16: float
    fp32: float
    bandwidth: float
    memory: float
    exchange: float
    reserve: float = 1.0 * GIB
    """A CUDA context, workspaces of cuBLAS and cuDNN, NCCL's buffers: an assumption."""

    def flops(self, precision: str) -> float:
        return self.bf16 if precision == "bf16" else self.fp32


_NETWORK = 50e9
"""400 Gbit/s a device between nodes."""

_GPUS = (
    Device("a10", 125e12, 31.2e12, 0.6e12, 24e9, 12e9),
    Device("a100", 312e12, 19.5e12, 2.04e12, 80e9, _NETWORK / 2),
    Device("a100-40", 312e12, 19.5e12, 1.56e12, 40e9, _NETWORK / 2),
    Device("b200", 2250e12, 75e12, 7.7e12, 180e9, _NETWORK),
    Device("h100", 989e12, 67e12, 3.35e12, 80e9, _NETWORK),
    Device("h200", 989e12, 67e12, 4.8e12, 141e9, _NETWORK),
    Device("l40s", 362e12, 91.6e12, 0.864e12, 48e9, 12e9),
    Device("rtx4090", 165e12, 82.6e12, 1.008e12, 24e9, 12e9),
)
DEVICES = {device.name: device for device in _GPUS}
"""fp32 products run as such: torch leaves TF32 off unless asked."""


def device(name: str) -> Device:
    """A device by name; "cpu" is this machine's, "auto" its GPU where it has one."""
    if name == "auto":
        name = _own_gpu() or "cpu"
    if name == "cpu":
        return _own_cpu()
    if name not in DEVICES:
        raise unknown("gpu", name, ["auto", "cpu", *DEVICES])
    return DEVICES[name]


def _own_gpu() -> str | None:
    if not torch.cuda.is_available():
        return None
    title = torch.cuda.get_device_name().lower().replace(" ", "")
    return next((name for name in sorted(DEVICES, key=len, reverse=True) if name in title), None)


def _own_cpu() -> Device:
    """Peak rates of this machine, from a product and a copy of a few hundredths of a second."""
    a = torch.ones(1024, 1024)
    half, buffer = a.bfloat16(), torch.ones(16 * 2**20)
    flops = [2 * 1024**3 / _fastest(lambda x=x: x @ x) for x in (a, half)]
    moved = 2 * buffer.nbytes / _fastest(lambda: buffer.clone())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device("cpu", flops[1], flops[0], moved, memory, moved, reserve=0.3 * GIB)


def _fastest(call: object) -> float:
    times = []
    for _ in range(4):
        began = time.perf_counter()
        call()  # type: ignore[operator]
        times.append(time.perf_counter() - began)
    return min(times)
