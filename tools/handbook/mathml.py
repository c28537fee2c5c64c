"""Displayed mathematics in Markdown pages, as MathML that browsers set without any script."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"^\$\$\n(?P<latex>.*?)\n\$\$$", re.M | re.S)
_WORD = re.compile(r"(<m(?:sub|sup|subsup|under|over)>)?<mo[^>]*>([A-Za-z]{2,})</mo>")
_FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2", re.M | re.S)


def drawn(markdown: str) -> str:
    """The page with every `$$` block outside of code as MathML."""
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_BLOCK.sub(_math, markdown[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, _BLOCK.sub(_math, markdown[end:])])


def _math(found: re.Match[str]) -> str:
    lines = [line for line in found["latex"].splitlines() if line.strip()]
    return '<div class="equation">' + "".join(map(element, lines)) + "</div>"


def element(latex: str) -> str:
    """One line as a `math` element; raises where the library cannot read it."""
    from latex2mathml.converter import convert

    text: str = convert(latex, display="block")
    return _WORD.sub(_name, text)


def _name(found: re.Match[str]) -> str:
    """A function's name as an identifier: as an operator it would push brackets away."""
    outer, name = found.groups()
    return f"{outer}<mi>{name}</mi>" if outer else f'<mi>{name}</mi><mspace width="0.17em"/>'
