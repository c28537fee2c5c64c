"""Commands that use a finished run: evaluate, embed, export, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssl_core.cli.app import App, command, device_option, run_argument
from ssl_core.cli.screen import Screen

if TYPE_CHECKING:
    from ssl_core.data import Failure


@command
@run_argument
@click.option("--data", help="Other data of the domain; default: the run's own.")
@click.option("--probe/--no-probe", default=True, help="Also fit linear probes.")
@device_option
def evaluate(
    app: App, screen: Screen, *, run: str, data: str | None, probe: bool, device: str
) -> None:
    """Measure a run again, or on other data.

    k-NN, linear probe, retrieval and geometry, for raw input, untrained and trained encoder.
    """
    from ssl_core import api

    found = api.evaluate(run, data, probe=probe, device=device, domain=app.domain)
    screen.rivals(found)
    screen.result(found)


@command
@run_argument
@click.option("--data", required=True, help="What to embed.")
@click.option("--out", required=True, help="A .npy file (keys beside it) or a .parquet file.")
@click.option("--batch-size", default=256, show_default=True)
@device_option
def embed(
    app: App, screen: Screen, *, run: str, data: str, out: str, batch_size: int, device: str
) -> None:
    """Write one vector for each record of DATA."""
    from ssl_core import api
    from ssl_core.runs.tables import check_table, write_embedding

    check_table(Path(out))  # before the work, not after it
    model = api.load(run, device=device, domain=app.domain)
    skipped: list[Failure] = []
    found = model.embed_source(model.open(data), batch_size=batch_size, on_corrupt=skipped.append)
    files = write_embedding(found, Path(out))
    for failure in skipped[:20]:
        screen.say(f"left out {failure.key}: {failure.reason}")
    screen.say(
        f"{len(found)} vectors of {found.features.shape[1]} numbers in "
        + ", ".join(str(file) for file in files)
        + (f"; {len(skipped)} records could not be read" if skipped else "")
    )
    screen.result(
        {
            "files": [str(file) for file in files],
            "count": len(found),
            "dim": found.features.shape[1],
            "corrupt": [{"key": f.key, "reason": f.reason} for f in skipped],
        }
    )


@command
@run_argument
@click.argument("out")
@click.option("--format", default="safetensors", show_default=True, help="safetensors or timm.")
def export(app: App, screen: Screen, *, run: str, out: str, format: str) -> None:
    """Write the encoder to one file OUT."""
    from ssl_core import api

    path = api.export(run, out, format=format, domain=app.domain)
    screen.say(f"written {path}")
    screen.result({"path": str(path), "format": format})


@command
@run_argument
def report(app: App, screen: Screen, *, run: str) -> None:
    """Write a run's report.html again."""
    from ssl_core.report import write_report
    from ssl_core.runs.folder import Run

    path = write_report(Run.load(run))
    screen.say(f"written {path}")
    screen.result({"report": str(path)})


COMMANDS = (evaluate, embed, export, report)
