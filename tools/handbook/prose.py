"""Docstrings as Markdown: paragraphs, lists, sections of arguments, equations, code."""

from __future__ import annotations

import re
import textwrap

from handbook import notation

_SECTION = re.compile(r"^(Arguments|Attributes|Returns|Raises|Yields|Shapes):\s*(.*)$")
_ENTRY = re.compile(r"^(`?[\w*., ]{1,60}`?):\s+(.*)$", re.S)
_CODE = re.compile(r"(`+[^`]+`+)")
_MARKS = {"\\": "\\\\", "*": "\\*", "_": "\\_", "[": "\\[", "]": "\\]", "#": "\\#"}
_ENTITIES = {"<": "&lt;", ">": "&gt;", "|": "&#124;", "$": "&#36;"}


def escape(text: str) -> str:
    """Text whose signs mean themselves; what stands in backticks stays code."""
    signs = {**_MARKS, **_ENTITIES}
    parts = _CODE.split(text)
    for at in range(0, len(parts), 2):
        parts[at] = "".join(signs.get(char, char) for char in parts[at])
    return "".join(parts)


def cell(text: str) -> str:
    """Text for one cell of a table."""
    return escape(" ".join(text.split())).replace("|", "&#124;")


def shown(text: object) -> str:
    """A value with every sign that Markdown or HTML would read as its own."""
    return str(text).replace("&", "&amp;").translate(_HTML)


def code(text: object) -> str:
    """A value as inline code that may stand in a table."""
    value = shown(text)
    return f"<code>{value}</code>" if value else ""


_HTML = {ord(sign): f"&#{ord(sign)};" for sign in "<>|$*_`[]"}


def markdown(text: str, *, equations: bool = False) -> str:
    """A docstring as Markdown; with `equations` its indented blocks are mathematics."""
    return "\n\n".join(_block(block, equations) for block in _blocks(textwrap.dedent(text)))


def _blocks(text: str) -> list[list[str]]:
    """Runs of lines that belong together: cut at blank lines and where indentation begins."""
    found: list[list[str]] = [[]]
    for line in text.strip("\n").splitlines():
        last = found[-1]
        if not line.strip():
            if last and last[0].startswith(" "):
                last.append("")  # an indented block may hold blank lines
            elif last:
                found.append([])
            continue
        inside = bool(last) and last[0].startswith(" ")
        begins = _SECTION.match(line) or inside != line.startswith(" ")
        if last and begins and (inside or _SECTION.match(line) or _opens(last, line)):
            found.append([line])
        else:
            last.append(line)
    return [block for block in found if any(line.strip() for line in block)]


def _opens(block: list[str], line: str) -> bool:
    """Whether an indented line begins a block of its own, and does not continue a list."""
    listed = block[0].startswith(("- ", "* ")) or _SECTION.match(block[0])
    return line.startswith("    ") and not listed


def _block(lines: list[str], equations: bool) -> str:
    head = _SECTION.match(lines[0])
    if head:
        return _section(head[1], head[2], lines[1:])
    if lines[0].startswith(" "):
        body = textwrap.dedent("\n".join(lines)).strip("\n")
        if equations:
            return display(notation.equation(body))
        return f"```python\n{body}\n```"
    if lines[0].startswith(("- ", "* ")):
        items = re.split(r"\n[-*] ", "\n".join(lines)[2:])
        return "\n".join(f"- {escape(' '.join(item.split()))}" for item in items)
    return escape("\n".join(lines))


def display(latex: list[str]) -> str:
    """Displayed mathematics, one line each."""
    return "$$\n" + "\n".join(latex) + "\n$$"


def _section(name: str, first: str, rest: list[str]) -> str:
    body = textwrap.dedent("\n".join(rest)).strip("\n")
    entries = re.split(r"\n(?=\S)", body) if body else []
    if first and not all(_ENTRY.match(entry) for entry in entries):
        return f"**{name}** {escape(' '.join([first, *body.split()]))}"
    lines = [f"**{name}**" + (f" {escape(first)}" if first else ""), ""]
    for entry in entries:
        found = _ENTRY.match(entry)
        if found:
            names = ", ".join(code(n.strip(" `")) for n in found[1].split(","))
            lines.append(f"- {names}: {escape(' '.join(found[2].split()))}")
        else:
            lines.append(f"- {escape(' '.join(entry.split()))}")
    return "\n".join(lines)
