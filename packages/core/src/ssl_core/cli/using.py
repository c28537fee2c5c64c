"""Commands that use a finished run: evaluate, embed, export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ssl_core.cli.app import App, command, device_option, run_argument
from ssl_core.cli.screen import Screen
from ssl_core.errors import UserError


@command(
    "evaluate runs/first",
    "evaluate runs/first --data labelled/ --few-shot 5 --few-shot 20",
)
@run_argument
@click.option("--data", type=click.Path(), help="Other data of the domain; default: the run's own.")
@click.option("--probe/--no-probe", default=True, help="Also fit linear probes.")
@click.option(
    "--few-shot",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Also with N labelled records a class; may be repeated.",
)
@click.option("--corruptions", is_flag=True, help="Also on spoiled input, at every severity.")
@click.option(
    "--more",
    multiple=True,
    metavar="NAME",
    help="Also by another protocol: finetune, or one of the domain's; may be repeated.",
)
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="Its options.")
@device_option
def evaluate(
    app: App,
    screen: Screen,
    *,
    run: str,
    data: str | None,
    probe: bool,
    few_shot: tuple[int, ...],
    corruptions: bool,
    more: tuple[str, ...],
    settings: tuple[str, ...],
    device: str,
) -> None:
    """Measure a run again, or on other data.

    k-NN, linear probe, retrieval and geometry, for raw input, untrained and trained encoder.
    """
    from ssl_core import api
    from ssl_core.runs.config import protocols

    found = api.evaluate(
        run,
        data,
        probe=probe,
        few_shot=few_shot,
        corruptions=corruptions,
        more=protocols(more, settings),
        device=device,
        domain=app.domain,
    )
    screen.rivals(found)
    _say_few_shot(screen, found.get("few_shot"))
    _say_corruptions(screen, found.get("corruptions"))
    for name, measured in found.get("more", {}).items():
        if "table" in measured:
            screen.say(f"\n{name}:")
            screen.table(*measured["table"])
    screen.result(found)


def _say_few_shot(screen: Screen, found: Mapping[str, Any] | None) -> None:
    if found is None:
        return
    shots = [row["shots"] for row in found["trained"]]
    screen.say("\nlinear classifier with few labels (accuracy, mean ± deviation over draws):")
    screen.table(
        ["labels a class", *map(str, shots)],
        [
            [rival, *(f"{100 * row['mean']:.1f} ± {100 * row['std']:.1f}" for row in rows)]
            for rival, rows in found.items()
        ],
    )


def _say_corruptions(screen: Screen, found: Mapping[str, Any] | None) -> None:
    from ssl_core.runs.summary import percent

    if found is None:
        return
    trained, untrained = found["trained"], found["untrained"]
    severities = range(1, 1 + max(map(len, trained["corrupted"].values())))
    screen.say("\nk-NN accuracy of the trained encoder on spoiled input, by severity:")
    rows = [
        [name, *(f"{100 * value:.1f}" for value in values)]
        for name, values in trained["corrupted"].items()
    ]
    screen.table(["", *map(str, severities)], rows)
    screen.say(
        f"  mean {percent(trained['mean'])} (clean {percent(trained['clean'])}); "
        f"untrained {percent(untrained['mean'])} (clean {percent(untrained['clean'])})"
    )


@command(
    "embed runs/first --data new/ --out vectors.npy",
    "embed runs/first --data new.csv --out vectors.parquet",
)
@run_argument
@click.option("--data", required=True, type=click.Path(), help="What to embed.")
@click.option(
    "--out",
    required=True,
    type=click.Path(),
    help="A .npy file (keys beside it) or a .parquet file.",
)
@click.option("--batch-size", default=256, show_default=True)
@click.option("--progress/--no-progress", default=True, help="Show progress on stderr.")
@device_option
def embed(
    app: App,
    screen: Screen,
    *,
    run: str,
    data: str,
    out: str,
    batch_size: int,
    progress: bool,
    device: str,
) -> None:
    """Write one vector for each record of DATA.

    The same command goes on where an interrupted one stopped.
    """
    from ssl_core import api
    from ssl_core.runs.embedding import embed_to, told_on_stderr
    from ssl_core.runs.tables import check_table

    check_table(Path(out))  # before the work, not after it
    model = api.load(run, device=device, domain=app.domain)
    found = embed_to(
        model,
        model.open(data),
        Path(out),
        batch_size=batch_size,
        advance=told_on_stderr() if progress else None,
    )
    if found.resumed:
        screen.say(f"records embedded before: {found.resumed}")
    for failure in found.failures[:20]:
        screen.say(f"left out {failure.key}: {failure.reason}")
    skipped = len(found.failures)
    screen.say(
        f"{found.count} vectors of {found.dim} numbers in "
        + ", ".join(str(file) for file in found.files)
        + (f"; records that could not be read: {skipped}" if skipped else "")
    )
    screen.result(
        {
            "files": [str(file) for file in found.files],
            "count": found.count,
            "dim": found.dim,
            "resumed": found.resumed,
            "corrupt": [{"key": f.key, "reason": f.reason} for f in found.failures],
        }
    )
    if skipped and not found.count:
        raise UserError(f"data: none of {skipped} records of {data} could be read")


@command("export runs/first encoder.safetensors")
@run_argument
@click.argument("out", type=click.Path())
@click.option(
    "--format",
    default="safetensors",
    show_default=True,
    help="safetensors, timm, onnx, or one of the domain's own, which a wrong name lists.",
)
def export(app: App, screen: Screen, *, run: str, out: str, format: str) -> None:
    """Write the encoder to one file (or folder) OUT, with a model card.

    What was written is loaded again and compared with the encoder.
    """
    from ssl_core import api

    path = api.export(run, out, format=format, domain=app.domain)
    screen.say(f"written {path}")
    screen.result({"path": str(path), "format": format})


COMMANDS = (evaluate, embed, export)
