"""The group of commands, and what happens to errors: one clean line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import click

from ssl_core.cli import (
    completing,
    looking,
    packing,
    planning,
    reporting,
    training,
    using,
    verifying,
)
from ssl_core.cli.app import App
from ssl_core.cli.screen import Screen
from ssl_core.errors import SSLError, unknown

_INTERRUPTED = 130


class Commands(click.Group):
    """A group whose `main` ends with the exit code an error stands for.

    0 done, 2 wrong input, 3 training aborted, 143 preempted after saving, 130 interrupted, 1 a
    fault of ours (with traceback). With `--json`, errors are one JSON object too.
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown("command", args[0], self.commands)
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        given = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(given, prog_name or self.name, **extra)
        except BaseException as error:
            code = _report(error, given)
        sys.exit(code if isinstance(code, int) else 0)


def _report(error: BaseException, args: Sequence[str]) -> int:
    """Prints an error as its kind deserves; returns the exit code."""
    code, message = _meaning(error)
    # click itself exits with 1 when a reader such as `head` closed our output: no fault of ours.
    ours = code == 1 and not isinstance(error, SystemExit)
    if ours or "--debug" in args:
        traceback.print_exception(error, file=sys.stderr)
    if message:
        click.echo(message, err=True)
    if "--json" in args:
        Screen(as_json=True).result({"error": message.removeprefix("error: "), "exit_code": code})
    return code


def _meaning(error: BaseException) -> tuple[int, str]:
    """(exit code, message) of an error."""
    if isinstance(error, SSLError):
        return error.exit_code, f"error: {error}"
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        usage = f"; see `{context.command_path} --help`" if context is not None else ""
        told = error.format_message()
        if "extra argument" in told and "=" in told:
            usage = "; write --set before each KEY=VALUE" + usage
        elif "extra argument" in told and context is not None:
            options = {name for option in context.command.params for name in option.opts}
            usage = "; name a recipe by --recipe NAME" * ("--recipe" in options) + usage
        return 2, f"error: {told}{usage}"
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else 1), ""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return _INTERRUPTED, (
            "interrupted; nothing that was saved is lost, and the same command starts again"
        )
    if isinstance(error, BrokenPipeError):  # `... | head` closed our output: not an error
        sys.stderr.close()
        return 0, ""
    return 1, f"error: {type(error).__name__}: {error}"


def _leave(done: SystemExit) -> None:
    """Ends a launcher's process, whose work is done and saved, without Python's teardown.

    Threads of gloo may hold the last reference to a tensor, and dropping it while the interpreter
    is torn down aborts the process (pytorch/pytorch#179291): the launcher would start all again.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a reader that is gone, a closed stream
            stream.flush()
    os._exit(done.code if isinstance(done.code, int) else 0)


def command_line(domain: str, *, name: str) -> Callable[..., None]:
    """The entry point `ssl-<name>` of a domain given as "module:OBJECT".

    Called without arguments it takes `sys.argv` and exits the process. Its `commands` attribute
    is the click group.
    """
    program = f"ssl-{name}"
    group = Commands(
        program,
        help=(
            f"Self-supervised learning: pretrain, evaluate and use {name} encoders.\n\n"
            f"Start with `{program} pretrain`: it needs no data and takes a minute or two."
        ),
        context_settings={"obj": App(domain, name), "help_option_names": ["-h", "--help"]},
        no_args_is_help=True,
    )
    groups = (training, planning, using, reporting, looking, packing, verifying, completing)
    for command in (command for group_ in groups for command in group_.COMMANDS):
        group.add_command(command)

    def main(args: Sequence[str] | None = None) -> None:
        try:
            group.main(args, program)
        except SystemExit as done:
            if args is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
                _leave(done)
            raise

    main.commands = group  # type: ignore[attr-defined]
    return main
