"""Where text goes: people read stdout, unless a program reads it as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

_RIVALS = {"raw": "raw input", "untrained": "untrained encoder", "trained": "trained encoder"}


class Screen:
    """Human text to stdout, or to stderr when stdout carries JSON; only rank 0 writes."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.quiet = os.environ.get("RANK", "0") != "0"

    def say(self, text: str = "") -> None:
        """One line (or several) for people."""
        if not self.quiet:
            click.echo(text, err=self.as_json)

    def progress(self, text: str) -> None:
        """A line on stderr that the next one replaces; nothing unless that is a terminal."""
        if not self.quiet and sys.stderr.isatty():
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    def result(self, content: Mapping[str, Any]) -> None:
        """The outcome for programs: one line, the last on stdout; nothing without `--json`."""
        from ssl_core.files import to_json

        if self.as_json and not self.quiet:
            sys.stderr.flush()
            click.echo(to_json(content))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns aligned by spaces: the first to the left, the rest to the right."""
        lines = [list(head), *[list(row) for row in rows]]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        for number, line in enumerate(lines):
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            self.say("  " + "  ".join(cells).rstrip())
            if number == 0:
                self.say("  " + "  ".join("─" * width for width in widths))

    def rivals(self, found: Mapping[str, Any]) -> None:
        """The three rivals side by side, and the verdict."""
        from ssl_core.runs.summary import SCORE_WORDS, percent, shown

        name = found["score"]["name"]
        probed = "probe" in found["rivals"]["trained"]
        head = ["", SCORE_WORDS[name], "effective rank"] + (["linear probe"] if probed else [])
        rows = []
        for key, title in _RIVALS.items():
            rival = found["rivals"][key]
            rank = shown("effective_rank", rival["effective_rank"])
            if key == "untrained" and "start" in found:
                title = "encoder at its start"
            row = [title, shown(name, found["score"][key]), f"{rank} of {rival['dim']:.0f}"]
            rows.append(row + ([percent(rival["probe"]["accuracy"])] if probed else []))
        self.say()
        self.table(head, rows)
        if found.get("chance") is not None:
            self.say(f"  (chance {percent(found['chance'])}, {found['queries']} held out)")
        self.say()
        self.say(found["verdict"])

    def pairs(self, content: Mapping[str, Any]) -> None:
        """`name  value` lines, aligned; a mapping as value in words."""
        width = max((len(name) for name in content), default=0)
        for name, value in content.items():
            if isinstance(value, Mapping):
                value = ", ".join(f"{key} {inner}" for key, inner in value.items())
            self.say(f"  {name.ljust(width)}  {value}")
