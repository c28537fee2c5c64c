"""The `ssl-lab` command."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.group(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Experiments over several domains: a grid of runs and a page of results."""


@commands.command("list")
def list_() -> None:
    """List the experiments that ship with the package."""
    from ssl_lab.experiment import cells, load, shipped

    for name in shipped():
        experiment = load(name)
        click.echo(f"{name}  ({len(cells(experiment))} runs)  {experiment.title}")


@commands.command()
@click.argument("experiment")
@click.option("--out", required=True, help="Folder of runs and results.")
@click.option("--device", "devices", multiple=True, help="One run at a time on each; repeatable.")
@click.option("--check", is_flag=True, help="Only say what would be run.")
def run(experiment: str, out: str, devices: tuple[str, ...], check: bool) -> None:
    """Run what is missing of EXPERIMENT (a name or a YAML file).

    The same command again goes on where it stopped.
    """
    from ssl_lab import running
    from ssl_lab.experiment import Cell, load
    from ssl_lab.page import write_page

    loaded, folder = load(experiment), Path(out)
    running.check(loaded)
    waiting = running.missing(loaded, folder)
    click.echo(f"{len(waiting)} runs to make")
    if check:
        for cell in waiting:
            click.echo(f"  {cell.name}")
        return

    def told(cell: Cell, well: bool, left: int) -> None:
        write_page(folder)
        click.echo(f"{'done' if well else 'FAILED'}  {cell.name}  ({left} left)", err=True)

    failed = running.run(loaded, folder, devices=devices or _devices(), on_done=told)
    click.echo(f"page    {write_page(folder)}\ntable   {folder / 'results.parquet'}")
    for failure in failed:
        click.echo(f"failed  {failure.cell.name}: {failure.reason}", err=True)
    if failed:
        sys.exit(3)


def _devices() -> list[str]:
    """Every GPU, or the processor."""
    import torch

    return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]


@commands.command()
@click.argument("folder")
def page(folder: str) -> None:
    """Write the page of FOLDER again, from the results so far."""
    from ssl_core.errors import UserError
    from ssl_lab.page import write_page
    from ssl_lab.running import EXPERIMENT

    if not (Path(folder) / EXPERIMENT).is_file():
        raise UserError(f"folder: {folder!r} holds no experiment")
    click.echo(f"page    {write_page(Path(folder))}")


def main(args: list[str] | None = None) -> None:
    """Runs the command; errors of input are one line and exit code 2."""
    from ssl_core.errors import SSLError

    try:
        commands.main(args, "ssl-lab", standalone_mode=False)
    except SSLError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        sys.exit(2)
    except click.Abort:
        click.echo("interrupted; the same command goes on where it stopped", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
