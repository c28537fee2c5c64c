"""Processes: how many a launcher started, their devices, the group they form."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from ssl_core.errors import UserError


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
        dist.init_process_group(
            "cpu:gloo,cuda:nccl", device_id=device, timeout=limit, **_meeting(limit)
        )
    else:
        dist.init_process_group("gloo", timeout=limit, **_meeting(limit))
    try:
        yield
    finally:
        dist.destroy_process_group()


def _meeting(limit: datetime.timedelta) -> dict[str, Any]:
    """Where the launcher's processes find each other, apart for every restart.

    The launcher's store outlives a crash. Without a name of its own, a restarted rank may read the
    address of one that died, fail to connect, and cost another restart.
    """
    store, number, world = next(rendezvous("env://", timeout=limit))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return {
        "store": dist.PrefixStore(f"attempt {attempt}", store),  # type: ignore[attr-defined]
        "rank": number,
        "world_size": world,
    }


def barrier() -> None:
    """Waits for every rank; nothing in a world of one."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()
