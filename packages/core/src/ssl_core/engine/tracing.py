"""`train.profile`: a trace of a few steps, to look at in a browser (chrome://tracing, Perfetto)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

SETTLE = 5
"""Steps left out first: allocation, compilation and warm-up are not what one looks for."""


class Tracer:
    """Writes `trace.json` into `folder` after `steps` traced steps; idle when `steps` is 0."""

    def __init__(self, folder: Path, steps: int) -> None:
        self._profile: profile | None = None
        if steps:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            folder.mkdir(parents=True, exist_ok=True)
            self._profile = profile(
                activities=activities,
                schedule=schedule(wait=SETTLE - 1, warmup=1, active=steps, repeat=1),
                on_trace_ready=lambda p: p.export_chrome_trace(str(folder / "trace.json")),
            )
            self._profile.start()

    def step(self) -> None:
        """Call it after every step."""
        if self._profile is not None:
            self._profile.step()

    def close(self) -> None:
        """Ends tracing; a run shorter than asked for still leaves what it has."""
        if self._profile is not None:
            self._profile.stop()
            self._profile = None
