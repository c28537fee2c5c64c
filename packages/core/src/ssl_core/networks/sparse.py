"""Running a dense convolutional network as if hidden places did not exist (SparK).

Convolutions bleed: a few layers on, a masked image's holes are filled with what surrounds them,
and norms mix visible and hidden places. After every convolution and pooling the hidden places are
set to zero again, and norms take their statistics over visible places only. The network itself
stays as it is: what is trained here runs densely afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from ssl_core.distributed import all_sum
from ssl_core.errors import UserError

Maps = dict[tuple[int, ...], Tensor]
_NONZERO = (_ConvNd, _AvgPoolNd, _MaxPoolNd, nn.LayerNorm, nn.Linear)
"""Layers that bring values to hidden places: from their neighbours, or by a bias."""


def visible_at(visible: Tensor, sides: tuple[int, ...]) -> Tensor | None:
    """`visible` (bool `[B, 1, *units]`) at another resolution, `[B, 1, *sides]`.

    None where `sides` is coarser than the units, as after global pooling; `UserError` where a unit
    does not cover whole cells.
    """
    units = visible.shape[2:]
    if any(side < unit for side, unit in zip(sides, units, strict=True)):
        return None
    if any(side % unit for side, unit in zip(sides, units, strict=True)):
        raise UserError(
            f"encoder: a map of {tuple(sides)} cells does not divide into {tuple(units)} mask "
            "units; choose a view size whose maps all do, such as a power of two"
        )
    for axis, (side, unit) in enumerate(zip(sides, units, strict=True)):
        visible = visible.repeat_interleave(side // unit, dim=2 + axis)
    return visible


@contextmanager
def sparse_pass(network: nn.Module, visible: Tensor | None) -> Iterator[Maps]:
    """While active, `network` computes at visible places only, and its maps are collected.

    The dictionary yielded holds, for each resolution, the last map `[B, C, *sides]` that any
    module of the network put out: the output of a stage. With None nothing is hidden.
    """
    maps: Maps = {}
    axes = next((len(m.kernel_size) for m in network.modules() if isinstance(m, _ConvNd)), 0)

    def collect(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == axes + 2:
            maps[tuple(output.shape[2:])] = output

    with ExitStack() as undo:
        for module in network.modules():
            if visible is not None:
                _make_sparse(module, visible, undo)
            undo.callback(module.register_forward_hook(collect).remove)
        yield maps


def _make_sparse(module: nn.Module, visible: Tensor, undo: ExitStack) -> None:
    norm = _norm_of(module)
    if norm is not None:

        def forward(x: Tensor) -> Tensor:
            mask = visible_at(visible, tuple(x.shape[2:]))
            if mask is None:
                dense: Tensor = type(module).forward(module, x)
                return dense
            out = norm(module, x, mask)
            act = getattr(module, "act", None)  # timm's norms with an activation of their own
            return out if act is None else act(out)

        module.forward = forward
        undo.callback(module.__dict__.pop, "forward")
    elif isinstance(module, _NONZERO):

        def hide(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            last = _channels_last(module, output)
            sides = tuple(output.shape[1:-1] if last else output.shape[2:])
            if len(sides) != visible.dim() - 2:
                return output
            mask = visible_at(visible, sides)
            if mask is None:
                return output
            return torch.where(mask.movedim(1, -1) if last else mask, output, 0.0)

        undo.callback(module.register_forward_hook(hide).remove)


def _channels_last(module: nn.Module, output: Tensor) -> bool:
    """Whether a layer's output is `[B, *sides, C]`, as inside ConvNeXt blocks."""
    if isinstance(module, nn.LayerNorm):
        return output.shape[1] != module.normalized_shape[0]
    return isinstance(module, nn.Linear)


Norm = Callable[[Any, Tensor, Tensor], Tensor]


def _norm_of(module: nn.Module) -> Norm | None:
    if isinstance(module, _BatchNorm):
        return sparse_batch_norm
    if isinstance(module, (_InstanceNorm, nn.GroupNorm)):
        return _sparse_sample_norm
    return None


def sparse_batch_norm(norm: _BatchNorm, x: Tensor, visible: Tensor) -> Tensor:
    """Batch norm of `[B, C, *sides]` over the visible places of all replicas; zero elsewhere.

    Running statistics move as in torch, with the unbiased variance over those places.
    """
    shape = [1, -1, *[1] * (x.dim() - 2)]
    if norm.training or norm.running_mean is None:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        weight = visible.to(wide.dtype)
        axes = [0, *range(2, x.dim())]
        count = all_sum(weight.sum())
        mean = all_sum((wide * weight).sum(axes)) / count
        centred = (wide - mean.reshape(shape)) * weight
        variance = all_sum(centred.square().sum(axes)) / count
        if norm.training and norm.running_mean is not None:
            _track(norm, mean.detach(), variance.detach(), count)
    else:
        assert norm.running_var is not None
        mean, variance = norm.running_mean, norm.running_var
        centred = x - mean.reshape(shape)
    out = centred * torch.rsqrt(variance + norm.eps).reshape(shape)
    return _scaled(norm, out, visible, shape).to(x.dtype)


def _sparse_sample_norm(norm: Any, x: Tensor, visible: Tensor) -> Tensor:
    """Instance or group norm over the visible places of each sample."""
    groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else x.shape[1]
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(1, (groups, -1)).flatten(3)
    weight = visible.flatten(2).unsqueeze(1).to(wide.dtype)  # [B, 1, 1, cells]
    count = weight.sum((2, 3), keepdim=True).clamp(min=1) * wide.shape[2]
    mean = (wide * weight).sum((2, 3), keepdim=True) / count
    centred = (wide - mean) * weight
    variance = centred.square().sum((2, 3), keepdim=True) / count
    out = (centred * torch.rsqrt(variance + norm.eps)).reshape(x.shape)
    return _scaled(norm, out, visible, [1, -1, *[1] * (x.dim() - 2)]).to(x.dtype)


def _scaled(norm: Any, out: Tensor, visible: Tensor, shape: list[int]) -> Tensor:
    if norm.weight is not None:
        out = out * norm.weight.reshape(shape)
    if norm.bias is not None:
        out = out + norm.bias.reshape(shape)
    return torch.where(visible, out, 0.0)


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    unbiased = variance * count / (count - 1).clamp(min=1)
    for running, new in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        running.add_((new.to(running.dtype) - running) * share)
