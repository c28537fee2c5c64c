"""Batch norm over the global batch, on any device.

`torch.nn.SyncBatchNorm` runs on accelerators only; this one uses the differentiable all-reduce,
so that two CPU ranks equal one process too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_core.distributed import all_sum, world_size


class CrossReplicaBatchNorm(_BatchNorm):
    """Batch norm of `[B, C, ...]` with mean and variance over all replicas' rows.

    In a world of one, or in evaluation, it is torch's own batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm needs [B, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if world_size() == 1 or not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        rows = x.new_tensor([float(x.numel() // x.shape[1])])
        count = all_sum(rows)
        mean = all_sum(x.sum(axes)) / count
        centred = x - mean.reshape(shape)
        # A second pass over the centred values: E[x^2] - E[x]^2 would cancel.
        variance = all_sum(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach(), count)
        out = centred * torch.rsqrt(variance + self.eps).reshape(shape)
        if self.affine:
            out = out * self.weight.reshape(shape) + self.bias.reshape(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), weight)


def convert_batchnorm(module: nn.Module) -> int:
    """Replaces every batch norm inside `module` in place; returns how many.

    Parameters and buffers are the same objects, so optimisers and teachers keep working.
    """
    found = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, _BatchNorm) and not isinstance(child, CrossReplicaBatchNorm)
    ]
    for parent, name, child in found:
        new = CrossReplicaBatchNorm(
            child.num_features,
            eps=child.eps,
            momentum=child.momentum,
            affine=child.affine,
            track_running_stats=child.track_running_stats,
        )
        new._parameters = child._parameters
        new._buffers = child._buffers
        new.training = child.training
        setattr(parent, name, new)
    return len(found)
