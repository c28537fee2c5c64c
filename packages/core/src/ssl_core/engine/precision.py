"""Numeric modes: autocast and determinism, set for a run and put back after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 autocast, or the same context disabled for fp32. fp16 would need a loss scaler."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


class _Float32WhereSmall(nn.Module):
    """Mixed into a convolution: bypasses bf16 autocast on grids no larger than the kernel."""

    kernel_size: tuple[int, ...]
    dilation: tuple[int, ...]
    weight: Tensor

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        if all(size > r for size, r in zip(x.shape[-len(reach) :], reach, strict=True)):
            return super().forward(x, *args, **kwargs)  # type: ignore[no-any-return]
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(  # type: ignore[no-any-return]
                x.to(self.weight.dtype), *args, **kwargs
            )


def sound_convolutions(module: nn.Module, device: torch.device, precision: str) -> None:
    """Keeps bf16 training on a CPU away from convolutions whose weight gradient is wrong there.

    oneDNN (PyTorch 2.14) reads memory it never wrote when the weight's gradient is formed in
    bfloat16 and the grid is about as small as the kernel: 2^3 voxels under 3^3, one pixel under
    3 x 3. The result is wrong without a warning, and NaN now and then. Such layers work in
    float32; all others, and every other device, are left as they are.
    """
    if device.type != "cpu" or precision != "bf16":
        return
    for layer in module.modules():
        kind = type(layer)
        if isinstance(layer, _ConvNd) and not isinstance(layer, _Float32WhereSmall):
            layer.__class__ = type(kind.__name__, (_Float32WhereSmall, kind), {})


def channels_last(module: nn.Module) -> None:
    """Puts the weights of convolutions over 2 and 3 axes into channels-last memory, in place.

    `Module.to(memory_format=...)` knows one rank at a time and fails on the other.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() in formats:
            tensor.data = tensor.data.contiguous(memory_format=formats[tensor.dim()])


@contextlib.contextmanager
def numerics(deterministic: bool, device: torch.device) -> Iterator[None]:
    """Deterministic kernels while active, and torch's global generator left as it was found.

    Some operations have no deterministic CUDA kernel; torch then warns and names them.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    if deterministic:
        if device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling fresh memory costs a pass over it and changes nothing of sound code.
        memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
