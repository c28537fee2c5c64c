"""Metrics stay on the device between log points; one copy brings a window's values home."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ssl_core.distributed import all_mean, rank, world_size
from ssl_core.files import atomic_write, to_json
from ssl_core.methods.base import Loss

_log = logging.getLogger("ssl_core")


class Window:
    """Running sums of a log window's values, on the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._start = time.perf_counter()
        self._waited = 0.0
        self._samples = 0

    def add(self, loss: Loss, grad_norm: Tensor, *, samples: int, waited: float) -> None:
        """Adds one step: its loss, gradient norm, global samples, and seconds of data wait."""
        values = {"loss": loss.total, **loss.parts, **loss.metrics, "grad_norm": grad_norm}
        for name, value in values.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count += 1
        self._samples += samples
        self._waited += waited

    def close(self) -> dict[str, float]:
        """Means of the window over steps and replicas, throughput and data-wait share.

        Every rank calls it at the same steps. Starts the next window.
        """
        names = list(self._sums)
        means = torch.stack([self._sums[n] for n in names]) / max(1, self._count)
        values = all_mean(means).tolist()
        seconds = max(time.perf_counter() - self._start, 1e-9)
        out = dict(zip(names, values, strict=True))
        out["samples_per_second"] = self._samples / seconds
        out["step_ms"] = 1000 * seconds / max(1, self._count)
        out["data_wait"] = self._waited / seconds
        out |= _spread(out["step_ms"], out["data_wait"])
        self.__init__()  # type: ignore[misc]
        return out


def _spread(step_ms: float, data_wait: float) -> dict[str, float]:
    """Between ranks: fastest and slowest step, and who waits longest for data; empty for one."""
    if world_size() == 1:
        return {}
    table = torch.zeros(world_size(), 2, dtype=torch.float64)
    table[rank()] = torch.tensor([step_ms, data_wait])
    dist.all_reduce(table)
    return {
        "step_ms_min": float(table[:, 0].min()),
        "step_ms_max": float(table[:, 0].max()),
        "data_wait_max": float(table[:, 1].max()),
        "slowest_rank": int(table[:, 1].argmax()),
    }


class MetricsFile:
    """`metrics.jsonl`: one record a log point, flushed, cut back on resume."""

    def __init__(self, path: Path, *, after: int) -> None:
        """Opens for appending; records past step `after` (from a killed attempt) are removed."""
        self.path = path
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= after]
            atomic_write(path, "".join(f"{line}\n" for line in kept))
        self.records: list[dict[str, Any]] = []
        """All records of the run so far."""
        if path.exists():
            self.records = [json.loads(line) for line in kept]
        self._file = path.open("ab", buffering=0)
        self._unwritten = b""

    def write(self, record: dict[str, Any]) -> None:
        """Appends one record. On a full disk it is kept for later, with a warning."""
        self.records.append(record)
        warned = bool(self._unwritten)
        self._unwritten += (to_json(record) + "\n").encode()
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            if not warned:
                _log.warning("%s cannot be written (%s); training goes on", self.path, error)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _step(line: str) -> float:
    """The step of a record; a torn last line counts as past every step."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
