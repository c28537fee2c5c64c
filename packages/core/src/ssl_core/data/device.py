"""Copies to a GPU that run beside the training."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Batch


def pin(data: Any) -> Any:
    """The same data in page-locked memory, from which copies are asynchronous."""
    if isinstance(data, Tensor):
        return data.pin_memory()
    if isinstance(data, (list, tuple)):
        return type(data)(pin(x) for x in data)
    pin_memory = getattr(data, "pin_memory", None)
    return data if pin_memory is None else pin_memory()


def pinned(batch: Batch) -> Batch:
    """The same batch in page-locked memory."""
    label = None if batch.label is None else batch.label.pin_memory()
    return replace(
        batch,
        data=pin(batch.data),
        ids=batch.ids.pin_memory(),
        index=batch.index.pin_memory(),
        label=label,
    )


def ahead_on_device(
    batches: Generator[Batch, None, None], device: torch.device
) -> Generator[Batch, None, None]:
    """Batches on a CUDA device, each copied on a side stream while the one before is used.

    Before a copy the side stream waits for all work queued so far on the training's stream. That
    work includes the last use of the batch before the one being handed out, so the memory this
    copy may reuse is free, whatever kind of object the data is.
    """
    side = torch.cuda.Stream(device)
    held: tuple[Batch, torch.cuda.Event] | None = None
    try:
        for batch in batches:
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):
                moved = batch.to(device)
                done = side.record_event()
            if held is not None:
                yield _awaited(held, device)
            held = (moved, done)
        if held is not None:
            yield _awaited(held, device)
    finally:
        batches.close()


def _awaited(held: tuple[Batch, torch.cuda.Event], device: torch.device) -> Batch:
    """The batch, once the training's stream knows when its copy is done."""
    batch, done = held
    torch.cuda.current_stream(device).wait_event(done)
    return batch
