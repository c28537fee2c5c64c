"""What makes whole views in few passes over their pixels, in place of torch's calls."""

from __future__ import annotations

import os
from types import ModuleType

import torch

from ssl_core.compiling import compiled


def fused(device: torch.device) -> ModuleType | None:
    """A module with `crop` and `Chain`, or None where torch's calls make the views.

    On the CPU compiled loops (`ops.loops`, with numba), on CUDA Triton kernels (`ops.kernels`),
    which `SSL_TRITON=1` asks for, since no GPU has timed them yet.
    """
    # Interpreted, the same kernels run on a CPU, which is how they are tested.
    takes = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    if takes and os.environ.get("SSL_TRITON") == "1":
        from ssl_core.ops import kernels

        return kernels
    return compiled("ssl_core.ops.loops", device)
