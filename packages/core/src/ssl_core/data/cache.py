"""Decoded samples kept in memory, where they fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ssl_core.data.fetch import Item

PROBE = 64
"""Samples whose mean size stands for all, before "auto" decides."""


class SampleCache:
    """Items by row. Decoded samples are shared, not copied: nobody may write into them.

    "memory" keeps what fits in `max_bytes`; "auto" keeps everything, or nothing when the first
    samples show that `length` of them would not fit in `max_bytes` or in half the free memory;
    "none" keeps nothing.
    """

    def __init__(
        self, length: int, *, kind: Literal["auto", "memory", "none"], max_bytes: int
    ) -> None:
        self.length = length
        self.active = kind != "none"
        self.deciding = kind == "auto"
        self.max_bytes = max_bytes
        self.bytes = 0
        self._items: dict[int, Item] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, index: int) -> Item | None:
        """The item of a row, if kept."""
        return self._items.get(index)

    def put(self, item: Item) -> None:
        """Keeps an item, if there is room."""
        if not self.active or item.index in self._items:
            return
        size = nbytes(item.sample)
        if not self.deciding and self.bytes + size > self.max_bytes:
            return
        self._items[item.index] = replace(item, failures=())
        self.bytes += size
        if self.deciding and len(self._items) >= min(PROBE, self.length):
            self._decide()

    def _decide(self) -> None:
        self.deciding = False
        needed = self.bytes / len(self._items) * self.length
        free = free_memory()
        if needed > self.max_bytes or (free is not None and needed > self.bytes + free / 2):
            self.active = False
            self._items.clear()
            self.bytes = 0


def nbytes(sample: Any) -> int:
    """Memory a decoded sample holds: its tensors and arrays, through containers and objects."""
    if isinstance(sample, Tensor):
        return sample.numel() * sample.element_size() + 200
    if isinstance(sample, np.ndarray):
        return int(sample.nbytes) + 100
    if isinstance(sample, (str, bytes, bytearray, int, float, bool)) or sample is None:
        return sys.getsizeof(sample)
    if isinstance(sample, Mapping):
        return sum(map(nbytes, sample.values())) + sys.getsizeof(sample)
    if isinstance(sample, (list, tuple, set)):
        return sum(map(nbytes, sample)) + sys.getsizeof(sample)
    to_dict = getattr(sample, "to_dict", None)
    if callable(to_dict):
        return nbytes(to_dict()) + 500
    return nbytes(dict(getattr(sample, "__dict__", {}))) + sys.getsizeof(sample)


def free_memory() -> int | None:
    """Bytes this process may still take, by the machine and by its control group; None unknown."""
    limits = []
    try:
        meminfo = Path("/proc/meminfo").read_text()
        fields = dict(line.split(":", 1) for line in meminfo.splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
            limits.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")
    try:
        cap = int((group / "memory.max").read_text())
        limits.append(max(cap - int((group / "memory.current").read_text()), 0))
    except (OSError, ValueError):
        pass  # no control group, or one without a cap ("max")
    return min(limits, default=None)
