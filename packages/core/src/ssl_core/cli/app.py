"""What every command shares: the domain, options, the way output is written."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ssl_core.cli.screen import Screen
from ssl_core.errors import unknown

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

    def recipes(self) -> list[str]:
        """Names of the shipped recipes, found without importing anything heavy."""
        folder = resources.files(self.spec.partition(":")[0].partition(".")[0]) / "recipes"
        files = folder.iterdir() if folder.is_dir() else ()
        return sorted(f.name[:-5] for f in files if f.name.endswith(".yaml"))

    @property
    def domain(self) -> Domain:
        """The domain object."""
        from ssl_core.runs.folder import resolve

        return resolve(self.spec)


class Choice(click.Choice[str]):
    """Fixed names; a wrong one is told the nearest."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            raise unknown(param.name if param and param.name else "value", str(value), self.choices)
        return str(value)


class Command(click.Command):
    """A command whose help ends with examples, each a full line to type."""

    examples: tuple[str, ...] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        program = ctx.find_root().info_name or ""
        with formatter.section("Examples"):
            for line in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{program} {line}\n")


def command(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a command of `function(app, screen, **options)`, with `--json` and `--debug` added.

    `examples` are lines to type, without the program's name. The function's docstring is the
    help, its name the command's (`list_` is `list`).
    """

    def make(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        @click.pass_obj
        def callback(app: App, /, *, as_json: bool, debug: bool, **options: Any) -> None:
            del debug  # read where errors are reported
            logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
            logging.getLogger("ssl_core.weights").setLevel(logging.INFO)  # what was loaded
            function(app, Screen(as_json=as_json), **options)

        callback = click.option("--debug", is_flag=True, help="Show tracebacks of errors.")(
            callback
        )
        callback = click.option(
            "--json", "as_json", is_flag=True, help="One JSON object on stdout; the rest on stderr."
        )(callback)
        name = function.__name__.rstrip("_").replace("_", "-")
        made = click.command(name, cls=Command)(callback)
        made.examples = examples
        return made

    return make


def known(kind: str) -> Callable[..., list[str]]:
    """What the shell offers for a name: methods, encoders, views or recipes of the domain."""

    def offered(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        app: App = ctx.find_root().obj or ctx.obj
        if kind == "recipes":
            names = app.recipes()
        else:
            domain = app.domain
            names = domain.encoder_names() if kind == "encoders" else sorted(getattr(domain, kind))
        return [name for name in names if name.startswith(incomplete)]

    return offered


def recipe_options(function: Function) -> Function:
    """The options that say what to train: each is a layer over the recipe."""
    options = [
        click.option(
            "--data",
            type=click.Path(),
            help="Folder, file list, manifest, 'shards-*.tar', URL of shards or hf:NAME; default: "
            "embedded data.",
        ),
        click.option(
            "--recipe",
            shell_complete=known("recipes"),
            help="A shipped recipe's name, a YAML file or a run folder.",
        ),
        click.option(
            "--method", shell_complete=known("methods"), help="Learning method; see `list methods`."
        ),
        click.option(
            "--encoder", shell_complete=known("encoders"), help="Network; see `list encoders`."
        ),
        click.option(
            "--views", shell_complete=known("views"), help="View policy; see `list views`."
        ),
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


run_argument = click.argument("run", metavar="RUN", type=click.Path())
device_option = click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
