"""Collectives that carry gradients; in a world of one each is the identity.

Convention: each rank returns the mean over its local rows, `gather` carries gradients, gradients
are averaged over ranks. Then W ranks give the gradient of one process on the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# The name changed in torch 2.14; the old one warns there.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def world_size() -> int:
    """Number of processes (1 without a process group)."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.new_empty(world_size() * x.shape[0], *x.shape[1:])
        _all_gather(out, x.contiguous())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        rows = grad.shape[0] // world_size()
        return grad[rank() * rows : (rank() + 1) * rows]


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = x.clone()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad


def gather(x: Tensor) -> Tensor:
    """All ranks' rows, `[b, ...] -> [W b, ...]` in rank order; gradients are summed back."""
    return x if world_size() == 1 else _Gather.apply(x)


def all_sum(x: Tensor) -> Tensor:
    """The sum over ranks, with gradients: the backward of a sum is a sum."""
    return x if world_size() == 1 else _AllReduce.apply(x)


def all_mean(x: Tensor) -> Tensor:
    """The mean over ranks, with gradients."""
    return all_sum(x) / world_size()
