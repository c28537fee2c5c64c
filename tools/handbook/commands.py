"""The reference of the commands, from the very parsers that read what users type."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from handbook import prose
from handbook.api import domain_packages
from snippets import group_of

PROGRAM = "ssl-DOMAIN"


def pages() -> dict[str, str]:
    """Place below the site -> Markdown."""
    programs = [f"ssl-{package[4:]}" for package in domain_packages()]
    groups = {program: group_of(program) for program in programs}
    first = groups[programs[0]]
    found = {"reference/commands.md": shared_page(first, programs)}
    for program, group in groups.items():
        if set(group.commands) != set(first.commands):
            raise ValueError(f"{program} has other commands than {programs[0]}: list them too")
    found["reference/lab.md"] = page(group_of("ssl-lab"), "ssl-lab")
    return found


def shared_page(group: click.Group, programs: list[str]) -> str:
    """The commands that every domain has; what is written holds for each program."""
    listed = ", ".join(f"`{program}`" for program in programs)
    note = f"{listed} have the same commands; `{PROGRAM}` stands for any of them."
    return page(group, PROGRAM, note)


def page(group: click.Group, program: str, note: str = "") -> str:
    """All commands of a program."""
    parts = [f"# {program}"]
    if note:
        parts.append(note)
    else:
        parts.append(prose.markdown(group.help or ""))
    for name in sorted(group.commands):
        parts += _command(group.commands[name], name, program)
    return "\n\n".join(parts) + "\n"


def _command(command: click.Command, name: str, program: str) -> Iterator[str]:
    context = click.Context(command, info_name=f"{program} {name}")
    yield f"## {name}"
    yield prose.markdown(inspect.cleandoc(command.help or ""))
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```bash\n{program} {name} {usage}\n```"
    rows = [row for option in command.params for row in _option(option, context)]
    if rows:
        yield "\n".join(["| option | | default |", "|---|---|---|", *rows])
    examples = getattr(command, "examples", ())
    if examples:
        lines = "\n".join(f"{program} {line}" for line in examples)
        yield f"```bash\n{lines}\n```"


def _option(option: click.Parameter, context: click.Context) -> Iterator[str]:
    record = option.get_help_record(context) if isinstance(option, click.Option) else None
    if record is None:
        return
    assert isinstance(option, click.Option)
    text = prose.cell(option.help or "")
    if option.multiple and "repeat" not in text:
        text += " May be repeated."
    default = option.default
    shown = default if isinstance(default, (str, int, float)) else None
    known = shown is not None and not isinstance(shown, bool)
    yield f"| {prose.code(record[0])} | {text} | {prose.code(shown) if known else ''} |"
