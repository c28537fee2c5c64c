"""Where a method meets its processes: recompute, compile, then shard or replicate. Nowhere else.

The order matters: what is recomputed in the backward pass is inside the compiled block, and the
compiled block is inside the sharded one. Names and number of parameters stay the same throughout,
so a checkpoint of any layout continues in any other.

- `train.parallel="ddp"`: every rank holds the method; gradients are averaged; batch norm becomes
  cross-replica.
- `train.parallel="fsdp"`: parameters, gradients, moments and teachers are split over ranks, one
  block at a time (FSDP2); with `train.shard=n`, over n ranks only and replicated beyond (HSDP).
  Buffers (queues, centres) are whole on every rank; a teacher is split as its student is, so its
  moving average needs no exchange.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ssl_core import recipe
from ssl_core.distributed import world_size
from ssl_core.engine.gradient_cache import refuse_batch_statistics
from ssl_core.engine.trees import mapped
from ssl_core.errors import UserError
from ssl_core.methods.base import Method
from ssl_core.networks.batchnorm import convert_batchnorm
from ssl_core.networks.dropout import same_keys
from ssl_core.networks.teacher import Teacher


def check_layout(
    train: recipe.Train, optimizer: recipe.Optimizer, device: torch.device, *, world: int
) -> None:
    """Raises `UserError` for settings that do not go together, before any work."""
    if train.parallel == "fsdp" and world > 1:
        if optimizer.name != "adamw":
            raise UserError(
                f"optimizer.name: {optimizer.name} has no kernel for parameters split over ranks; "
                "use adamw with train.parallel=fsdp, or train.parallel=ddp"
            )
        if world % (train.shard or world):
            raise UserError(
                f"train.shard: {world} ranks do not divide into groups of {train.shard}"
            )
    if not train.cuda_graphs:
        return
    if device.type != "cuda":
        raise UserError(
            f"train.cuda_graphs: device {device.type} has none; use train.cuda_graphs=false"
        )
    for other, on in (
        ("parallel=fsdp", train.parallel == "fsdp"),
        ("checkpointing=true", train.checkpointing),
    ):
        if on:  # weights that come and go, blocks that run twice: no fixed addresses to replay
            raise UserError(
                f"train.cuda_graphs: not together with train.{other}; choose one of them"
            )


def replicate(method: Method) -> nn.Module:
    """The method as one of many equal copies, whose gradients are averaged as they come."""
    return DistributedDataParallel(method, broadcast_buffers=False, gradient_as_bucket_view=True)


def parallelize(
    method: Method,
    train: recipe.Train,
    optimizer: recipe.Optimizer,
    device: torch.device,
    *,
    replicate: Callable[[Method], nn.Module] = replicate,
) -> nn.Module:
    """The module to call in the training loop; the method itself is changed in place.

    Call it after `method.to(device)` and before building the optimiser: sharding makes new
    parameters. Raises `UserError` for combinations that would compute something else.
    """
    check_layout(train, optimizer, device, world=world_size())
    if train.checkpointing:
        for block in repeated_blocks(method):
            recompute(block)
    if train.compile or train.cuda_graphs:
        compile_encoder(method.encoder, graphs=train.cuda_graphs)
    if world_size() == 1:
        return method
    if train.parallel == "fsdp":
        return shard(method, train, device)
    convert_batchnorm(method)
    return replicate(method)


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of every stack of equal blocks inside `module`: encoders, decoders, teachers."""
    found = []
    for stack in module.modules():
        children = list(stack.children())
        same = len(children) > 1 and len({type(child) for child in children}) == 1
        deep = all(any(True for _ in child.children()) for child in children)
        if same and (
            isinstance(stack, nn.ModuleList) or (isinstance(stack, nn.Sequential) and deep)
        ):
            found += children
    return found


def recompute(block: nn.Module) -> None:
    """Keeps only the input of `block` for the backward pass and runs it again there.

    Dropout repeats itself: keyed dropout from the keys of the first run, stock dropout from the
    generator state that torch restores.
    """
    if any(isinstance(module, _BatchNorm) for module in block.modules()):
        raise UserError(
            f"train.checkpointing: {type(block).__name__} has batch norm, whose running "
            "statistics would see every batch twice; use train.checkpointing=false"
        )
    inner = block.forward

    def forward(*args: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return inner(*args, **named)
        return checkpoint(inner, *args, use_reentrant=False, context_fn=_contexts, **named)

    block.forward = forward


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of a block's first and second run."""
    return contextlib.nullcontext(), same_keys()


def compile_encoder(encoder: nn.Module, *, graphs: bool = False) -> None:
    """Compiles an encoder in place; names of parameters stay the same.

    With `graphs` what was compiled is replayed as CUDA graphs, one for each shape of input.

    A transformer is compiled block by block: every block shares one compiled graph, warm-up is
    short, and both `forward` and a masked method's `encode` run through it.
    """
    options: dict[str, Any] = {"mode": "reduce-overhead", "dynamic": False} if graphs else {}
    for part in repeated_blocks(encoder) or [encoder]:
        part.compile(**options)


def shard(method: Method, train: recipe.Train, device: torch.device) -> nn.Module:
    """Splits parameters over ranks, in place: blocks, then encoders, then what is left."""
    refuse_batch_statistics(method, "train.parallel=fsdp")
    world = world_size()
    over = train.shard or world
    mesh = (
        init_device_mesh(device.type, (world,), mesh_dim_names=("shard",))
        if over == world
        else init_device_mesh(
            device.type, (world // over, over), mesh_dim_names=("replicate", "shard")
        )
    )
    bf16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = bf16 if train.precision == "bf16" else MixedPrecisionPolicy()
    # A root stays whole after its forward unless told otherwise; a teacher inside it, which has
    # no backward pass, would then stay whole for good.
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": policy, "reshard_after_forward": True}
    for block in repeated_blocks(method):
        fully_shard(block, **options)
    for encoder in _encoders(method):  # evaluation calls them without the method
        encoder.forward = own_outputs(encoder.forward)
        fully_shard(encoder, **options)
        if hasattr(encoder, "encode"):
            encoder.encode = own_outputs(encoder.encode)  # type: ignore[assignment, arg-type]
            register_fsdp_forward_method(encoder, "encode")
    fully_shard(method, **options)
    if train.accumulate > 1 and method.batch_coupled:  # the gradient cache calls these two
        method.encode = own_outputs(method.encode)  # type: ignore[method-assign]
        register_fsdp_forward_method(method, "encode")
        register_fsdp_forward_method(method, "loss")
    return method


def own_outputs(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, whose differentiable results are views of nothing.

    FSDP hangs the gathering of weights for the backward pass on a module's results. A class token
    is a view of all tokens, and changing a view in place would silently drop what hangs on it.
    """

    def owned(x: Any) -> Any:
        if isinstance(x, Tensor):
            return x.clone() if x.requires_grad and x._base is not None else x
        return mapped(x, owned)

    owning = torch.compiler.disable(owned)

    @functools.wraps(call)
    def called(*given: Any, **named: Any) -> Any:
        return owning(call(*given, **named))

    return called


def _encoders(method: Method) -> Iterator[nn.Module]:
    yield method.encoder
    for module in method.modules():
        if isinstance(module, Teacher) and "encoder" in module.names:
            yield module.encoder
