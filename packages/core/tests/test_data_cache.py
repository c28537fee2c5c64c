"""Keeping decoded samples: all or nothing, or what fits, by honest sizes."""

from __future__ import annotations

import numpy as np
import torch

from ssl_core.data.cache import SampleCache, free_memory, nbytes
from ssl_core.data.fetch import Item


def item(index: int, count: int) -> Item:
    return Item(index, str(index), None, torch.zeros(count, dtype=torch.uint8))


def test_auto_keeps_all_or_nothing() -> None:
    fits = SampleCache(1000, kind="auto", max_bytes=2_000_000)
    too_big = SampleCache(1000, kind="auto", max_bytes=500_000)
    for index in range(100):
        fits.put(item(index, 1000))
        too_big.put(item(index, 1000))
    assert len(fits) == 100
    assert len(too_big) == 0
    assert too_big.get(0) is None


def test_memory_keeps_what_fits() -> None:
    cache = SampleCache(1000, kind="memory", max_bytes=12_500)
    for index in range(100):
        cache.put(item(index, 1000))
    assert len(cache) == 10
    assert cache.bytes <= 12_500
    assert cache.get(0) is not None
    assert cache.get(50) is None


def test_sizes_of_samples() -> None:
    class Graph:
        def __init__(self) -> None:
            self.x = torch.zeros(1000)

    for sample in (
        torch.zeros(1000),
        np.zeros(500),
        {"a": torch.zeros(1000)},
        [torch.zeros(500), (torch.zeros(500),)],
        Graph(),
        bytes(4000),
    ):
        assert 4000 <= nbytes(sample) < 5500
    free = free_memory()
    assert free is None or free > 0
