"""Tensors on huge pages of memory, where Linux has them."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

_PAGE = 2 << 20  # bytes, on x86-64 and on ARM with small pages of 4 KiB
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25  # <linux/mman.h>; the second since Linux 6.1


def on_huge_pages(tensors: Iterable[Tensor]) -> None:
    """Moves CPU memory that holds `tensors` to huge pages, at the addresses that it has.

    What is read and written once a step in one pass (a teacher and its student) waits for the
    processor to find each page of 4 KiB: a tenth of its time. Contents do not change; where the
    system has no huge pages, or none left, nothing does. `THP_MEM_ALLOC_ENABLE=0`, torch's own
    switch, turns this off.
    """
    madvise = _madvise()
    if madvise is None:
        return
    pages: set[int] = set()
    for tensor in tensors:
        if tensor.device.type == "cpu":
            first = tensor.data_ptr()
            pages.update(range(first // _PAGE, -(-(first + _bytes(tensor)) // _PAGE)))
    if len(pages) < 3:  # so little stays in the caches
        return
    for page in sorted(pages):
        if madvise(page * _PAGE, _PAGE, _MADV_HUGEPAGE) == 0:
            madvise(page * _PAGE, _PAGE, _MADV_COLLAPSE)


def _bytes(tensor: Tensor) -> int:
    """From the first to the last number."""
    if not tensor.numel():
        return 0
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum((size - 1) * stride for size, stride in steps)) * tensor.element_size()


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The system's call, or None where there is none or it is not wanted."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if sys.platform != "linux" or os.environ.get("THP_MEM_ALLOC_ENABLE") == "0":
        return None
    if not setting.is_file() or "[never]" in setting.read_text():
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return call
