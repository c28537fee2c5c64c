"""What keeps one bad batch from spoiling a run."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_core.errors import TrainingAborted


class BatchNormGuard:
    """Undoes the running statistics of a step whose gradient was not finite.

    They change in the forward pass, before anyone knows; without this a single NaN batch would
    stay in them for ever.
    """

    def __init__(self, method: nn.Module) -> None:
        names = ("running_mean", "running_var")
        self._buffers = [b for name, b in method.named_buffers() if name.endswith(names)]
        self._copies = [torch.empty_like(b) for b in self._buffers]

    @torch.no_grad()
    def remember(self) -> None:
        """Copies the statistics before a step."""
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    @torch.no_grad()
    def restore_unless(self, finite: Tensor) -> None:
        """Puts the copies back where `finite` (0-dim bool) is False, without asking the device."""
        if finite.device.type == "cpu":
            if self._buffers and not bool(finite):
                torch._foreach_copy_(self._buffers, self._copies)
            return
        for buffer, copy in zip(self._buffers, self._copies, strict=True):
            torch.where(finite, buffer, copy, out=buffer)


class SkipCounter:
    """Counts skipped steps on the device; the host reads it at log points only."""

    def __init__(self, device: torch.device, limit: int) -> None:
        self.total = torch.zeros((), dtype=torch.int64, device=device)
        self._in_row = torch.zeros((), dtype=torch.int64, device=device)
        self._worst = torch.zeros((), dtype=torch.int64, device=device)
        self._limit = limit
        self._last_bad = False

    @torch.no_grad()
    def count(self, finite: Tensor) -> None:
        """Adds one step; on the CPU, where reading is free, also checks it."""
        if finite.device.type == "cpu":
            before, self._last_bad = self._last_bad, not bool(finite)
            if not before and not self._last_bad:
                return  # nothing to count, and nothing to reset
        bad = (~finite).to(torch.int64)
        self.total += bad
        self._in_row = (self._in_row + bad) * bad
        self._worst = torch.maximum(self._worst, self._in_row)
        if finite.device.type == "cpu" and bool(bad):
            self.check(None)

    def check(self, step: int | None) -> None:
        """Raises `TrainingAborted` when too many steps in a row were skipped."""
        if int(self._worst) >= self._limit:
            where = "" if step is None else f" by step {step}"
            raise TrainingAborted(
                f"{int(self._worst)} steps in a row had a non-finite gradient{where}; "
                "lower optimizer.lr, set optimizer.clip, or use train.precision=fp32"
            )
