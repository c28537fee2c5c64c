"""Commands that look: list, doctor, inspect, samples, bench."""

from __future__ import annotations

import fnmatch
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ssl_core.cli.app import App, Choice, command, known, recipe_options
from ssl_core.cli.screen import Screen

if TYPE_CHECKING:
    from ssl_core.domain import Domain
    from ssl_core.registry import Registry

_KINDS = ("methods", "encoders", "views", "recipes")


@command("list", "list methods", "list encoders --match 'vit_*'", "list views --long")
@click.argument("kind", type=Choice(_KINDS), required=False)
@click.option("--match", default="*", help="Only names that fit a pattern such as 'vit_*'.")
@click.option("--long", is_flag=True, help="With options and their defaults; recipes with a line.")
def list_(app: App, screen: Screen, *, kind: str | None, match: str, long: bool) -> None:
    """List methods, encoders, views or recipes.

    With --long, each with the options that a recipe may set (`--set views.size=96`), and
    recipes with what they are.
    """
    from ssl_core.runs.config import recipe_names

    domain = app.domain
    found: dict[str, list[str]] = {
        "methods": sorted(domain.methods),
        "views": sorted(domain.views),
        "recipes": recipe_names(domain),
        # Walking another library's thousand models takes seconds: only when asked for.
        "encoders": domain.encoder_names() if kind == "encoders" else sorted(domain.encoders),
    }
    chosen = {name: found[name] for name in ([kind] if kind else _KINDS)}
    shown = {name: fnmatch.filter(names, match) for name, names in chosen.items()}
    told = {name: _told(domain, name, names) if long else {} for name, names in shown.items()}
    for name, names in shown.items():
        if not kind:
            screen.say(f"{name}:")
        for entry in names:
            screen.say(entry if kind else f"  {entry}")
            if told[name].get(entry):
                screen.say(textwrap.indent(_lines(told[name][entry]), "      "))
    if not kind:
        screen.say(f"\n`{app.program} list encoders` also shows those of other libraries")
    screen.result(told if long else shown)


def _told(domain: Domain, kind: str, names: Sequence[str]) -> dict[str, Any]:
    """The options of methods, views and encoders, the description of recipes."""
    from ssl_core.runs.config import shipped

    if kind == "recipes":
        return {name: shipped(domain, name).get("description", "") for name in names}
    registry: Registry = getattr(domain, kind)
    # Those of other libraries are not ours to list.
    return {name: registry.options(name) if name in registry else {} for name in names}


def _lines(told: str | Mapping[str, str]) -> str:
    if isinstance(told, str):
        return told
    return "\n".join(f"{name}: {default or '(must be given)'}" for name, default in told.items())


@command("doctor", "doctor --json")
def doctor(app: App, screen: Screen) -> None:
    """Check this machine: versions, GPU, formats, disk, threads.

    Every problem comes with what to do about it.
    """
    from ssl_core.runs.diagnosis import diagnose

    found = diagnose(app.domain)
    for section, content in found.items():
        if section in ("problems", "advice"):
            continue
        screen.say(f"{section}:")
        screen.pairs(content)
    screen.say()
    for problem in found["problems"]:
        screen.say(f"problem: {problem}")
    if not found["problems"]:
        screen.say("no problems found")
    for advice in found["advice"]:
        screen.say(f"optional: {advice}")
    screen.result(found)


@command("samples data/", "samples data/ --count 200 --seed 1")
@click.argument("folder", type=click.Path())
@click.option("--count", type=click.IntRange(min=2), help="How many; default: as embedded.")
@click.option("--kind", help="Other data than the embedded, where the domain has some.")
@click.option("--seed", default=0, show_default=True)
def samples(
    app: App, screen: Screen, *, folder: str, count: int | None, kind: str | None, seed: int
) -> None:
    """Write example data into an empty FOLDER.

    A small labelled set of real files, the same for the same seed.
    """
    from ssl_core.runs.parts import write_samples

    domain = app.domain
    path = Path(folder)
    number = write_samples(domain, path, count=count, seed=seed, kind=kind)
    screen.say(f"{number} {domain.sample_kind} in {path}")
    screen.say(f"\nnext\n  {app.program} inspect {path}\n  {app.program} pretrain --data {path}")
    if kind is None and domain.more_samples:
        others = ", ".join(sorted(domain.more_samples))
        screen.say(f"\nother data, by --kind: {others}")
    screen.result({"folder": str(path), "count": number, "kind": kind, "seed": seed})


@command("inspect data/", "inspect data.csv --limit 500", "inspect data/ --method byol")
@click.argument("data", type=click.Path())
@click.option("--limit", default=2000, show_default=True, help="Decode at most this many.")
@click.option(
    "--method",
    shell_complete=known("methods"),
    help="Show the views of this method; default: those of `pretrain`.",
)
@click.option("--picture", type=click.Path(), help="Where views are drawn. [DATA.views.png, here]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Recipe values.")
def inspect(
    app: App,
    screen: Screen,
    *,
    data: str,
    limit: int,
    method: str | None,
    picture: str | None,
    settings: tuple[str, ...],
) -> None:
    """Look into DATA before training on it.

    Counts, classes, sizes, unreadable and nearly equal records, what training would assume, and a
    picture of what the views make of a few records.
    """
    from ssl_core import api
    from ssl_core.runs.inspection import inspect_data

    domain = app.domain
    recipe = api.build_recipe(domain, data=data, method=method, settings=settings)
    target = Path(picture or f"{_stem(data)}.views.png")
    found = inspect_data(domain, recipe, limit=limit, picture=target)
    screen.say(
        f"{found['records']} {domain.called(found['spec'])}: {found['train']} to train on, "
        f"{found['heldout']} held out"
    )
    if found["classes"] is not None:
        screen.say(f"\n{len(found['classes'])} classes (records):")
        screen.pairs(dict(list(found["classes"].items())[:30]))
    screen.say("\nas training would read them:")
    screen.pairs(found["spec"])
    if found["facts"]:
        screen.say("\nwhat the records hold:")
        screen.pairs(found["facts"])
    screen.say(f"\n{found['checked']} looked into, {found['corrupt']} of them unreadable")
    for entry in found["unreadable"][:20]:
        screen.say(f"  {entry['key']}: {entry['reason']}")
    _say_doubles(screen, found.get("doubles"))
    _say_views(screen, found["views"])
    screen.say(f"\nnext\n  {app.program} pretrain --data {data}")
    screen.result(found)


def _stem(data: str) -> str:
    """The last word of a path, a pattern or a URL, fit for a file name."""
    last = re.split(r"[/\\:]", data.rstrip("/\\"))[-1]
    word = re.sub(r"[^\w.-]", "", last).strip(".")
    return re.sub(r"\.\w{1,7}$", "", word) or "data"


def _say_views(screen: Screen, views: dict[str, Any]) -> None:
    """What the views make of a few records."""
    for caption, texts in views["words"].items():
        screen.say(f"\n{caption}:")
        for text in texts:
            screen.say(f"  {text}")
    if views["picture"]:
        columns = ", ".join(views["captions"])
        screen.say(f"\nviews '{views['name']}' drawn in {views['picture']} ({columns})")


def _say_doubles(screen: Screen, doubles: list[dict[str, Any]] | None) -> None:
    """Pairs that show the same thing, and what they spoil."""
    if doubles is None:
        return
    across = [pair for pair in doubles if pair["across"]]
    confused = [pair for pair in doubles if pair["labels_differ"]]
    screen.say(f"pairs of nearly equal records: {len(doubles)}")
    for what, pairs in (
        ("lie on both sides of the hold-out and make scores too good", across),
        ("have different labels", confused),
    ):
        if pairs:
            screen.say(f"  {len(pairs)} {what}:")
            for pair in pairs[:5]:
                screen.say(f"    {pair['keys'][0]}  {pair['keys'][1]}")


@command("bench", "bench --data data/ --method byol --batch-size 256")
@recipe_options
@click.option("--seconds", default=3.0, show_default=True, help="Time for each measurement.")
def bench(app: App, screen: Screen, *, seconds: float, **options: Any) -> None:
    """Measure samples per second of a recipe.

    Reading, views and whole training steps, each alone.
    """
    from ssl_core import api
    from ssl_core.runs.benchmarking import benchmark

    domain = app.domain
    found = benchmark(domain, api.build_recipe(domain, **options), seconds=seconds)
    screen.table(
        ["", "samples/s", "ms a batch"],
        [
            [name, f"{row['samples_per_second']:.0f}", f"{row['milliseconds']:.1f}"]
            for name, row in found["rates"].items()
        ],
    )
    screen.say(f"\n{found['bound']}")
    screen.result(found)


COMMANDS = (list_, doctor, samples, inspect, bench)
