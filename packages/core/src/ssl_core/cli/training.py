"""Commands that train: pretrain, adapt, resume, finetune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_core.cli.app import App, Choice, command, device_option, recipe_options, run_argument
from ssl_core.cli.rehearsing import rehearse
from ssl_core.cli.screen import Screen

if TYPE_CHECKING:
    from ssl_core.runs.folder import Run

progress_option = click.option(
    "--progress/--no-progress", default=True, help="Show progress on stderr."
)


@command(
    "pretrain",
    "pretrain --data data/ --out runs/first",
    "pretrain --data data/ --method byol --set optimizer.lr=1e-3 --dry-run",
    "pretrain --recipe runs/first --seed 1 --out runs/first-seed1",
)
@recipe_options
@click.option(
    "--out", type=click.Path(), help="Run folder; default: the next free one below runs/."
)
@click.option(
    "--track",
    multiple=True,
    type=Choice(["tensorboard", "wandb"]),
    help="Also log there (needs ssl-core[tracking]); may be repeated.",
)
@click.option("--profile", is_flag=True, help="Trace a few steps into RUN/profile/trace.json.")
@click.option("--dry-run", is_flag=True, help="Show what would be trained, then stop.")
@progress_option
def pretrain(app: App, screen: Screen, *, profile: bool, dry_run: bool, **options: Any) -> None:
    """Train an encoder without labels.

    Ends with a comparison to raw input and the untrained encoder. The same command in the same
    folder continues an interrupted run. With --dry-run nothing is trained: the complete recipe,
    the sizes of the networks and a picture of the views show what would be.
    """
    from ssl_core import api
    from ssl_core.runs.folder import Run

    if profile:
        options["settings"] = [*options["settings"], "train.profile=5"]
    if dry_run:
        rehearse(app, screen, options)
        return
    out = options["out"]
    if out is not None and Run(Path(out)).finished:
        screen.say(f"{out} is finished; this is its outcome. Give another --out to train again.")
    run = api.pretrain(app.domain, **options)
    _show(app, screen, run)


@command(
    "adapt runs/first --data other/ --steps 2000",
    "adapt encoder.safetensors --data data/",
)
@click.argument("start", metavar="START")
@recipe_options
@click.option("--out", help="Run folder; default: the next free one below runs/.")
@click.option(
    "--guard",
    type=Choice(["rollback", "stop", "off"]),
    default="rollback",
    show_default=True,
    help="When the score falls below the start's: take good weights back, stop, or go on.",
)
@click.option("--anchor", default=0.01, show_default=True, help="Pull towards the start (L2-SP).")
@click.option(
    "--frozen", default=0.1, show_default=True, help="Share of steps in which only heads learn."
)
@click.option(
    "--track",
    multiple=True,
    type=Choice(["tensorboard", "wandb"]),
    help="Also log there (needs ssl-core[tracking]); may be repeated.",
)
@progress_option
def adapt(app: App, screen: Screen, *, start: str, **options: Any) -> None:
    """Continue pretraining from START, a run or a safetensors file.

    Says which tensors matched, lets new heads grow on the frozen encoder first, holds the encoder
    near its start, and watches its score against step 0. A tenth of the recipe's learning rate.
    """
    from ssl_core import api

    _show(app, screen, api.adapt(app.domain, start, **options))


@command("resume runs/first")
@run_argument
@progress_option
def resume(app: App, screen: Screen, *, run: str, progress: bool) -> None:
    """Finish an interrupted run.

    The result is the same, bit for bit, as if nothing had happened.
    """
    from ssl_core import api

    _show(app, screen, api.resume(run, domain=app.domain, progress=progress))


@command(
    "finetune runs/first --data labelled/",
    "finetune runs/first --data labelled/ --labelled 100 --layer-decay 0.75",
)
@run_argument
@click.option("--data", type=click.Path(), help="Labelled data; default: the run's own.")
@click.option("--out", type=click.Path(), help="Where to write; default: RUN/finetune.")
@click.option("--steps", default=500, show_default=True, help="Optimiser steps.")
@click.option("--lr", default=1e-3, show_default=True, help="Highest learning rate.")
@click.option("--layer-decay", type=float, help="Rate factor per layer downwards, e.g. 0.75.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--views", help="View policy; default: the domain's gentlest.")
@click.option(
    "--task",
    default="classification",
    show_default=True,
    help="classification, multilabel, regression, or one of the domain's own.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="COLUMN",
    help="Column of the data to learn; may be repeated. Default: its labels.",
)
@click.option("--labelled", type=click.IntRange(min=1), help="Train on so many labelled records.")
@device_option
@progress_option
def finetune(app: App, screen: Screen, *, run: str, **options: Any) -> None:
    """Train a classifier on a run's encoder, or another task.

    A linear probe on the frozen encoder first, then every layer from there.
    """
    from ssl_core import api
    from ssl_core.runs.folder import Run
    from ssl_core.runs.summary import shown_score

    found = api.finetune(run, domain=app.domain, **options)
    screen.say()
    if "scores" in found:
        probe, tuned = (found["scores"][name] for name in ("probe", "finetuned"))
        rows = [
            ["linear probe, frozen encoder", *(shown_score(*item) for item in probe.items())],
            ["all layers fine-tuned", *(shown_score(*item) for item in tuned.items())],
        ]
        screen.table(["", *(f"held-out {name}" for name in tuned)], rows)
    else:
        screen.table(*found["table"])
    if found.get("corrupt"):
        where = Run(Path(found["out"])).corrupt_file
        screen.say(f"records that could not be read: {found['corrupt']}; reasons are in {where}")
    if found.get("unreadable"):
        screen.say(f"held-out records that could not be read or scored: {found['unreadable']}")
    screen.say(f"\nwritten to {found['out']}")
    screen.result(found)


def _show(app: App, screen: Screen, run: Run) -> None:
    """The outcome of a run and what to do next."""
    if screen.quiet:
        return
    summary = run.summary
    screen.rivals(summary)
    if summary["corrupt"]:
        screen.say(
            f"records that could not be read: {summary['corrupt']}; "
            f"reasons are in {run.corrupt_file}"
        )
    screen.say(f"\nrun     {run.path}")
    screen.say(f"report  {run.report_file}")
    screen.say("\nnext")
    for line in (
        f"{app.program} evaluate {run.path}",
        f"{app.program} embed {run.path} --data YOUR_DATA --out embeddings.npy",
        f"{app.program} finetune {run.path}",
        f"{app.program} export {run.path} encoder.safetensors",
    ):
        screen.say(f"  {line}")
    screen.result({"run": str(run.path), "report": str(run.report_file), **summary})


COMMANDS = (pretrain, adapt, resume, finetune)
