"""What every command shares: the domain, options, the way output is written."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ssl_core.cli.screen import Screen

if TYPE_CHECKING:
    from ssl_core.domain import Domain

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class App:
    """One domain's command; the domain is imported when a command asks for it."""

    spec: str
    name: str

    @property
    def program(self) -> str:
        """What the user types."""
        return f"ssl-{self.name}"

    @property
    def domain(self) -> Domain:
        """The domain object."""
        from ssl_core.runs.folder import resolve

        return resolve(self.spec)


def command(function: Callable[..., Any]) -> click.Command:
    """A command from `function(app, screen, **options)`, with `--json` and `--debug` added."""

    @functools.wraps(function)
    @click.pass_obj
    def callback(app: App, /, *, as_json: bool, debug: bool, **options: Any) -> None:
        del debug  # read where errors are reported
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        function(app, Screen(as_json=as_json), **options)

    callback = click.option("--debug", is_flag=True, help="Show tracebacks of errors.")(callback)
    callback = click.option(
        "--json", "as_json", is_flag=True, help="One JSON object on stdout; the rest on stderr."
    )(callback)
    return click.command(function.__name__.rstrip("_").replace("_", "-"))(callback)


def recipe_options(function: Function) -> Function:
    """The options that say what to train: each is a layer over the recipe."""
    options = [
        click.option(
            "--data",
            help="Folder, file list, manifest, 'shards-*.tar' or hf:NAME; default: embedded data.",
        ),
        click.option("--recipe", help="A shipped recipe's name, a YAML file or a run folder."),
        click.option("--method", help="Learning method; see `list methods`."),
        click.option("--encoder", help="Network; see `list encoders`."),
        click.option("--views", help="View policy; see `list views`."),
        click.option("--steps", type=int, help="Optimiser steps."),
        click.option("--batch-size", type=int, help="Samples a step, over all processes."),
        click.option("--seed", type=int, help="Seed of everything random."),
        click.option("--device", help="auto, cpu, cuda or cuda:N."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any recipe value, e.g. optimizer.lr=1e-3; may be repeated.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


run_argument = click.argument("run", metavar="RUN")
device_option = click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
