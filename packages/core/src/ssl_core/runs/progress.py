"""A progress line on stderr: samples/s, time left, loss parts, data wait, effective rank."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_core.engine.fit import Callback

# What a log record holds besides the loss and its parts.
KNOWN = frozenset(
    {
        "step",
        "steps",
        "lr",
        "samples_per_second",
        "step_ms",
        "step_ms_min",
        "step_ms_max",
        "data_wait_max",
        "slowest_rank",
        "feature_std",
        "uniformity",
        "alignment",
        "verdict",
        "data_wait",
        "effective_rank",
        "grad_norm",
        "skipped",
        "score",
    }
)


def parts_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The loss and its named parts and metrics, in the order they were logged."""
    return {name: value for name, value in record.items() if name not in KNOWN}


def describe(record: Mapping[str, Any]) -> str:
    """One log record in one line."""
    texts = [f"{name} {_short(value)}" for name, value in parts_of(record).items()]
    texts.append(f"{record.get('samples_per_second', 0.0):.0f} samples/s")
    texts.append(f"data wait {100 * record.get('data_wait', 0.0):.0f} %")
    if record.get("effective_rank") is not None:
        texts.append(f"rank {record['effective_rank']:.1f}")
    if record.get("score") is not None:
        texts.append(f"score {record['score']:.4f}")
    if record.get("skipped"):
        texts.append(f"{record['skipped']} skipped")
    if record.get("verdict", "healthy") != "healthy":
        texts.append(record["verdict"])
    return " · ".join(texts)


def _short(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4g}"


class Bar:
    """A live bar with time left and the newest log record below it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("[bold]training"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True),
            refresh_per_second=4,
        )
        self._task: Any = None

    def on_start(self, step: int, steps: int) -> None:
        self._progress.start()
        self._task = self._progress.add_task("train", total=steps, completed=step, text="")

    def on_log(self, record: dict[str, Any]) -> None:
        self._progress.update(self._task, completed=record["step"], text=describe(record))

    def on_end(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def close(self) -> None:
        """Leaves the terminal as it was, also after an error."""
        self._progress.stop()


class Lines:
    """Plain lines, at most one every `seconds`: for log files and pipes."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._last = -seconds
        self._began = (0.0, 0)

    def on_start(self, step: int, steps: int) -> None:
        self._began = (time.monotonic(), step)
        if step:
            print(f"continuing after step {step} of {steps}", file=sys.stderr, flush=True)

    def on_log(self, record: dict[str, Any]) -> None:
        now = time.monotonic()
        last = record["step"] == record["steps"]
        if now - self._last < self._seconds and not last:
            return
        self._last = now
        print(
            f"step {record['step']}/{record['steps']} · {self._left(record, now)} · "
            f"{describe(record)}",
            file=sys.stderr,
            flush=True,
        )

    def _left(self, record: Mapping[str, Any], now: float) -> str:
        started, first = self._began
        done = max(1, record["step"] - first)
        seconds = (now - started) / done * (record["steps"] - record["step"])
        return f"{int(seconds // 60)}:{int(seconds % 60):02d} left"

    def on_end(self, step: int) -> None:
        """Nothing to close."""


def progress_callbacks(progress: bool | None) -> Sequence[Callback]:
    """A live bar on a terminal, lines elsewhere; None shows something only on a terminal."""
    terminal = sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        return []
    return [Bar() if terminal else Lines()]
