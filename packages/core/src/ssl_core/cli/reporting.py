"""Commands that show: report, watch."""

from __future__ import annotations

from pathlib import Path

import click

from ssl_core.cli.app import App, command
from ssl_core.cli.screen import Screen

_PORT = 8756


@command(
    "report runs/first",
    "report runs/simclr runs/byol --out compared.html",
    "report runs/first --figures figures/",
)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--out",
    type=click.Path(),
    help="The file to write; default: RUN/report.html, of several runs comparison.html.",
)
@click.option(
    "--figures",
    type=click.Path(),
    metavar="DIR",
    help="Also write the plots as PNG and SVG there (needs ssl-core[figures]).",
)
def report(
    app: App, screen: Screen, *, runs: tuple[str, ...], out: str | None, figures: str | None
) -> None:
    """Write the report of a run again, or compare several.

    One HTML file that needs nothing else: open it, mail it. Of several runs it shows a table,
    scores, curves over one another, and what differs between their recipes.
    """
    from ssl_core.files import atomic_write
    from ssl_core.report import render
    from ssl_core.report.compare import write_comparison
    from ssl_core.runs.folder import Run

    found = [Run.load(run) for run in runs]
    drawn: list[Path] = []
    if figures is not None:
        from ssl_core.report.figures import write_figures

        drawn = write_figures(found, Path(figures))
    if len(found) > 1:
        path = write_comparison(found, Path(out or "comparison.html"))
    else:
        path = found[0].report_file if out is None else Path(out)
        atomic_write(path, render(found[0]))
    screen.say(f"written {path}")
    for file in drawn:
        screen.say(f"written {file}")
    screen.result({"report": str(path), "figures": [str(file) for file in drawn]})


@command("watch", "watch runs/ --port 0")
@click.argument("runs", default="runs", type=click.Path())
@click.option(
    "--port",
    default=_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Where to listen on this machine; 0 takes any free port.",
)
def watch(app: App, screen: Screen, *, runs: str, port: int) -> None:
    """Show the runs below RUNS in a browser, live while they train.

    Serves the same reports on 127.0.0.1, to this machine only; pages follow the runs without
    losing their place. Ctrl-C ends it. From another machine, tunnel: ssh -L 8756:127.0.0.1:8756.
    """
    from ssl_core.report.watch import HOST, server

    with server(Path(runs), port=port) as serving:
        url = f"http://{HOST}:{serving.server_port}/"
        screen.say(f"watching {runs} at {url} (Ctrl-C ends)")
        screen.result({"url": url})
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            screen.say("stopped watching")


COMMANDS = (report, watch)
