"""Where Triton kernels stand in for sums over all pairs by tiles or rows."""

from __future__ import annotations

import os
from types import ModuleType

import torch
from torch import Tensor


def kernels_for(z: Tensor, *, bf16: bool) -> ModuleType | None:
    """`triton_partition`, where `SSL_TRITON=1` asks for it and it can take rows like these."""
    # Neither fake tensors, by which runs are planned, nor a traced graph can launch kernels.
    if os.environ.get("SSL_TRITON") != "1" or type(z) is not Tensor:
        return None
    if torch.compiler.is_compiling():
        return None
    from ssl_core.objectives import triton_partition

    return triton_partition if triton_partition.takes(z, bf16) else None
