"""`pretrain --dry-run`: what would be trained, shown before anything is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_core.cli.app import App
from ssl_core.cli.planning import show_plan
from ssl_core.cli.screen import Screen

_PRETRAIN_ONLY = ("out", "track", "progress")


def rehearse(app: App, screen: Screen, options: Mapping[str, Any]) -> None:
    """Prints recipe, data and sizes, and writes a picture of the views beside the run's folder."""
    from ssl_core import api
    from ssl_core.runs.rehearsal import rehearsal

    domain = app.domain
    asked = {name: value for name, value in options.items() if name not in _PRETRAIN_ONLY}
    recipe = api.build_recipe(domain, **asked)
    out = options["out"] or f"{recipe.domain}-{recipe.method.name}"
    found = rehearsal(domain, recipe, Path(f"{out}.views.png"))
    screen.say(found["recipe"].rstrip())
    screen.say("\nnetworks (numbers they learn):")
    screen.pairs({name: f"{count:,}" for name, count in found["parameters"].items()})
    data = found["data"]
    screen.say(
        f"\ndata: {data['train']} {data['called']} to train on, {data['heldout']} held out; "
        f"{found['epochs']:.1f} passes over them in {recipe.train.steps} steps"
    )
    for caption, texts in found["words"].items():
        screen.say(f"\n{caption}:")
        for text in texts:
            screen.say(f"  {text}")
    if found["picture"]:
        screen.say(f"\nviews drawn in {found['picture']} ({', '.join(found['captions'])})")
    screen.say()
    show_plan(screen, found["plan"])
    screen.say("\nnothing was trained; the same command without --dry-run does")
    screen.result(found)
