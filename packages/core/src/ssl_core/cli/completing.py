"""The command that teaches a shell to complete commands, options, names and paths."""

from __future__ import annotations

import sys

import click
from click.shell_completion import get_completion_class

from ssl_core.cli.app import App, Choice, command
from ssl_core.cli.screen import Screen
from ssl_core.errors import UserError

_WHERE = {
    "bash": 'eval "$({0} completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$({0} completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "{0} completion fish | source   # in ~/.config/fish/config.fish",
}


@command("completion bash > ~/.ssl-completion", "completion fish | source")
@click.argument("shell", type=Choice(tuple(_WHERE)))
def completion(app: App, screen: Screen, *, shell: str) -> None:
    """Print the script that lets SHELL (bash, zsh or fish) complete this command.

    It completes commands, options, methods, encoders, views, recipes and paths. To have it in
    every new shell, add one line to the shell's start file: eval "$(PROGRAM completion bash)" to
    ~/.bashrc, the same with zsh to ~/.zshrc, PROGRAM completion fish | source to config.fish.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise UserError(f"shell: {shell!r} cannot be completed by the installed click")
    root = click.get_current_context().find_root().command
    variable = f"_{app.program.replace('-', '_').upper()}_COMPLETE"
    script = kind(root, {}, app.program, variable).source()
    screen.say(script)
    if sys.stdout.isatty():
        click.echo(f"# for every new shell: {_WHERE[shell].format(app.program)}", err=True)
    screen.result({"shell": shell, "script": script})


COMMANDS = (completion,)
