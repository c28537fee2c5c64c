"""Process groups and replication, applied in one readable place."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_core.errors import UserError
from ssl_core.networks.batchnorm import convert_batchnorm


def launched_world() -> int:
    """The number of processes a launcher such as torchrun started (1 without one)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def choose_device(name: str) -> torch.device:
    """A torch device for "auto", "cpu", "cuda", "cuda:1"; under torchrun the local rank's GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: {name!r} is not one of auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: {name!r} was asked for, but no CUDA GPU is visible; use 'cpu'")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


@contextmanager
def process_group(device: torch.device, *, timeout: float = 1800) -> Iterator[None]:
    """Joins the launcher's processes for the duration; does nothing in a world of one.

    A rank that hears nothing from another for `timeout` seconds raises, and the launcher starts
    all of them again.
    """
    if launched_world() == 1 or dist.is_initialized():
        yield
        return
    limit = datetime.timedelta(seconds=timeout)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device, timeout=limit)
    else:
        dist.init_process_group("gloo", timeout=limit)
    try:
        yield
    finally:
        dist.destroy_process_group()


def replicate(method: nn.Module) -> nn.Module:
    """The module to call in the training loop: gradients averaged over replicas.

    Batch norm becomes cross-replica first, so that statistics are those of the global batch.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return method
    convert_batchnorm(method)
    return DistributedDataParallel(method, broadcast_buffers=False, gradient_as_bucket_view=True)


def compile_encoder(encoder: nn.Module) -> None:
    """Compiles an encoder in place; names of parameters stay the same.

    A transformer is compiled block by block: every block shares one compiled graph, warm-up is
    short, and both `forward` and a masked method's `encode` run through it.
    """
    lists = [m for m in encoder.modules() if isinstance(m, nn.ModuleList)]
    repeated = [m for m in lists if len(m) > 1 and len({type(child) for child in m}) == 1]
    for block in (child for blocks in repeated for child in blocks):
        block.compile()
    if not repeated:
        encoder.compile()


def barrier() -> None:
    """Waits for every rank; nothing in a world of one."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()
