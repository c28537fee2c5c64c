"""All records in order, for evaluation and embedding."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from ssl_core.batch import Batch, Reader, Source
from ssl_core.data.collate import collate
from ssl_core.data.fetch import Failure, Fetcher, Item

logger = logging.getLogger(__name__)


def decode_all(
    source: Source,
    reader: Reader,
    indices: Sequence[int] | np.ndarray | None = None,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    workers: int = 2,
    on_corrupt: Callable[[Failure], None] | None = None,
) -> Iterator[Batch]:
    """Batches of the rows `indices` (default: all), in their order, each row as its own id.

    Corrupt records are left out, so a batch may be smaller than `batch_size`, and reported:
    `on_corrupt` gets each `Failure` (row, key, reason); without it a warning is logged.
    """
    rows = np.arange(len(source)) if indices is None else np.asarray(indices, np.int64)
    report = _warn if on_corrupt is None else on_corrupt
    for found in _in_order(Fetcher(source, reader), rows, batch_size, workers):
        items = []
        for item in found:
            if isinstance(item, Failure):
                report(item)
            else:
                items.append(item)
        if items:
            ids = np.array([item.index for item in items], np.int64)
            labelled = source.classes is not None
            yield collate(items, ids, reader, labelled=labelled).to(device)


def _in_order(
    fetcher: Fetcher, rows: np.ndarray, batch_size: int, workers: int
) -> Iterator[list[Item | Failure]]:
    """What decoding gives for each `batch_size` rows, two batches ahead with workers."""
    parts = (rows[i : i + batch_size].tolist() for i in range(0, len(rows), batch_size))
    if workers == 0:
        for part in parts:
            yield [fetcher.decode(index) for index in part]
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    waiting: deque[list[Future[Item | Failure]]] = deque()
    try:
        for part in parts:
            waiting.append([pool.submit(fetcher.decode, index) for index in part])
            if len(waiting) > 2:
                yield [task.result() for task in waiting.popleft()]
        while waiting:
            yield [task.result() for task in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _warn(failure: Failure) -> None:
    logger.warning("%s is corrupt and left out: %s", failure.key, failure.reason)
