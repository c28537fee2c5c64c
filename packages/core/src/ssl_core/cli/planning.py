"""The command that predicts: plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ssl_core.cli.app import App, command, recipe_options
from ssl_core.cli.screen import Screen


@command(
    "plan --recipe default",
    "plan --method byol --gpus 8 --gpu h100 --set train.precision=bf16",
    "plan --recipe default --gpus 256 --gpu h100 --set train.parallel=fsdp",
)
@recipe_options
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Devices.")
@click.option(
    "--gpu",
    default="auto",
    show_default=True,
    help="Their kind: h100, h200, b200, a100, l40s, ..., cpu; auto is what this machine has.",
)
def plan(app: App, screen: Screen, *, gpus: int, gpu: str, **options: Any) -> None:
    """Predict memory and time of training, without training.

    The step is run on tensors without storage, for as many processes as asked for, so that a plan
    for 256 GPUs needs none. Says what to switch on where memory does not suffice.
    """
    from ssl_core import api

    found = api.plan(app.domain, gpus=gpus, gpu=gpu, **options)
    show_plan(screen, found)
    screen.result(found)


_LITTLE = 100 * 2**20
"""Bytes beside the runtime below which measured peaks differed by a few MiB, not by a share."""


def show_plan(screen: Screen, found: Mapping[str, Any]) -> None:
    """Prints what `runs.planning.plan` found."""
    kind, batch, memory = found["gpu"], found["batch"], found["memory"]
    screen.say(
        f"{found['method']} with {found['encoder']} on {found['gpus']} x {kind['name']}: "
        f"{batch['global']} samples a step, {batch['micro']} at once on each\n"
    )
    rows = [[name, _size(held)] for name, held in memory["parts"].items()]
    screen.table(["memory of one device", ""], [*rows, ["all", _size(memory["total"])]])
    verdict = "fits" if memory["fits"] else "does NOT fit"
    screen.say(f"\n{verdict} into {_size(memory['available'])}")
    if memory["total"] - memory["parts"]["runtime"] < _LITTLE:
        screen.say("so little is good to 10 MiB; from a gigabyte on, to 15 %")
    step, rate, loader = found["step_seconds"], found["samples_per_second"], found["loader"]
    stored = loader["stored_mb_per_second"]
    facts = {
        "parameters": f"{found['parameters']['trained']:,} trained, "
        f"{found['parameters']['frozen']:,} not",
        "products": f"{found['flops'] / 1e9:,.1f} GFLOP a step and device",
        "traffic": f"{_size(found['traffic'])} read and written",
        "a step": f"{1000 * step['low']:.3g} to {1000 * step['high']:.3g} ms; "
        f"bound by {found['bound']} at best",
        "throughput": f"{rate['low']:,.0f} to {rate['high']:,.0f} samples/s in all",
        "loader": f"up to {loader['samples_per_second']:,.0f} samples/s a process, "
        f"{loader['decoded_mb_per_second']:,.1f} MB/s decoded"
        + (f", {stored:,.1f} MB/s read" if stored is not None else ""),
    }
    screen.say()
    screen.pairs(facts)
    for entry in found["advice"]:
        screen.say(_advice(entry))


def _advice(entry: Mapping[str, Any]) -> str:
    settings = " ".join(f"--set {key}={_word(value)}" for key, value in entry["set"].items())
    head = f"\n{settings}\n  " if settings else "\n"
    if "refused" in entry:
        return f"{head}not here: {entry['refused']}"
    outcome = ""
    if "total" in entry:
        outcome = f"; {_size(entry['total'])}, " + ("fits" if entry["fits"] else "still too much")
    return f"{head}{entry['why']}{outcome}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


COMMANDS = (plan,)
