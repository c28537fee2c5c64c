"""Does every command and snippet in README and docs say what exists?

    uv run python tools/snippets.py                # all pages
    uv run python tools/snippets.py README.md      # some
    uv run python tools/snippets.py --run          # run them, from wheels, in an empty environment

Without `--run` nothing is run. Python blocks must compile, and what they import must exist.
Commands of ours must parse with their options; `pretrain` must also give a recipe: its methods,
encoders, views, recipes and `--set` keys are looked up. Words in capitals (RUN, DIR) and `my...`
stand for the reader's own.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ssl_core import api
from ssl_core.errors import SSLError

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/**/*.md", "packages/*/README.md", "apps/*/README.md")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```", re.M | re.S)
_COMMAND = re.compile(r"ssl-(\w+)")
_MODULE = re.compile(r"ssl_(\w+)")
_OWN = re.compile(r"[A-Z][A-Z_0-9]*(/.*)?|my\w*([./:].*)?")


@dataclass(frozen=True)
class Snippet:
    """A fenced block: where it stands, its language, its text."""

    page: Path
    line: int
    language: str
    code: str


def pages() -> list[Path]:
    """Every page whose snippets are checked."""
    return sorted(path for pattern in PAGES for path in ROOT.glob(pattern))


def snippets(page: Path) -> list[Snippet]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(
            page,
            text[: found.start()].count("\n") + 1,
            found["language"],
            textwrap.dedent(found["code"]),
        )
        for found in _FENCE.finditer(text)
    ]


def problems(snippet: Snippet) -> Iterator[str]:
    """What is wrong with a snippet, in words."""
    if snippet.language == "python":
        found = python_problems(snippet.code)
    elif snippet.language in ("", "bash", "sh", "console"):
        found = shell_problems(snippet.code)
    else:
        return
    for problem in found:
        yield f"{snippet.page.relative_to(ROOT)}:{snippet.line}: {problem}"


def python_problems(code: str) -> Iterator[str]:
    """Syntax, and names of our packages that do not exist."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        yield f"no Python: {error.msg}: {(error.text or '').strip()}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ssl_"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    yield f"{node.module} has no {alias.name}"
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and _MODULE.fullmatch(node.value.id)
            and not hasattr(importlib.import_module(node.value.id), node.attr)
        ):
            yield f"{node.value.id} has no {node.attr}"


def commands(code: str) -> Iterator[tuple[str, list[str]]]:
    """(program, arguments) of every command of ours in a shell block."""
    for line in code.replace("\\\n", " ").splitlines():
        if not re.search(r"\bssl[-_]\w+", line):
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # prose or a tree, not a command
        for part in _split(words):
            found = _ours(part)
            if found is not None:
                yield found


def _split(words: Sequence[str]) -> Iterator[list[str]]:
    """The commands that `&&`, `;` or `|` join."""
    part: list[str] = []
    for word in words:
        if word in ("&&", ";", "|"):
            yield part
            part = []
        else:
            part.append(word)
    yield part


def _ours(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Our program in one command: `ssl-vision ...`, `uv run ssl-vision`, `... -m ssl_vision`."""
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        if _COMMAND.fullmatch(word) and (not before or before == "run" or "=" in before):
            return word, list(words[at + 1 :])
        if word == "-m" and at + 1 < len(words) and _MODULE.fullmatch(words[at + 1]):
            return words[at + 1].replace("_", "-"), list(words[at + 2 :])
    return None


def shell_problems(code: str) -> Iterator[str]:
    """Commands of ours that do not parse, or name what does not exist."""
    for program, arguments in commands(code):
        try:
            check_command(program, arguments)
        except (SSLError, click.ClickException) as error:
            message = error.format_message() if isinstance(error, click.ClickException) else error
            yield f"{program} {' '.join(arguments)}: {message}"


def group_of(program: str) -> click.Group:
    """The click group behind a program."""
    module = importlib.import_module(f"{program.replace('-', '_')}.__main__")
    found: click.Group = getattr(module, "commands", None) or module.main.commands
    return found


def check_command(program: str, arguments: Sequence[str]) -> None:
    """Parses as click does, without running; raises what click or the recipe says."""
    group = group_of(program)
    if not arguments or arguments[0] in ("--help", "-h"):
        return
    context = click.Context(group, info_name=program, **group.context_settings)
    name, command, rest = group.resolve_command(context, list(arguments))
    assert command is not None
    inner = command.make_context(name, rest, parent=context)
    if name == "pretrain":
        check_recipe(f"ssl_{program[4:]}.domain:{program[4:].upper()}", inner.params)


def check_recipe(domain: str, given: dict[str, Any]) -> None:
    """The recipe these options give; the reader's own words are passed over."""
    names = ("recipe", "method", "encoder", "views")
    words = {name: given[name] for name in names if given[name] and not _OWN.match(given[name])}
    settings = [text for text in given["settings"] if not _OWN.match(text.partition("=")[2])]
    recipe = words.pop("recipe", None)
    if recipe is not None and ("/" in recipe or Path(recipe).suffix in (".yaml", ".yml")):
        recipe = None  # a run or a file of the reader's own
    api.build_recipe(domain, recipe, **words, settings=settings)


def run(chosen: Sequence[Path], folder: Path | None) -> int:
    """Runs what pages say; 1 where something fails."""
    import tempfile

    from snippet_runs import run_pages

    with tempfile.TemporaryDirectory() as temporary:
        target = (folder or Path(temporary)).resolve()
        target.mkdir(parents=True, exist_ok=True)
        return 1 if any(found.failed for found in run_pages(chosen, target)) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="default: README and all docs")
    parser.add_argument("--run", action="store_true", help="run them, shortened, from wheels")
    parser.add_argument("--folder", type=Path, help="where; kept (default: a temporary one)")
    given = parser.parse_args()
    chosen = [path.resolve() for path in given.pages] or pages()
    if given.run:
        return run(chosen, given.folder)
    found = [problem for page in chosen for block in snippets(page) for problem in problems(block)]
    print("\n".join(found) or f"{sum(len(snippets(page)) for page in chosen)} snippets agree")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
