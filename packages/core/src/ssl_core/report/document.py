"""A whole HTML page that loads nothing: styles and scripts inside, named by hash in its policy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from typing import Any

from ssl_core.report.style import CSS


def document(
    title: str,
    sections: Sequence[str],
    *,
    scripts: Sequence[str] = (),
    version: str | None = None,
) -> str:
    """The page of these sections, each made by `section` or empty.

    Its content security policy allows the style and the scripts given here by their hashes,
    pictures inside the page, and nothing else: no requests, no forms, no attributes with style or
    script. With `version` (a page that a watching server keeps fresh) it may ask its own server.
    """
    allowed = {
        "default-src": "'none'",
        "style-src": _hash(CSS),
        "script-src": " ".join(map(_hash, scripts)) or "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        **({} if version is None else {"connect-src": "'self'"}),
    }
    policy = "; ".join(f"{name} {value}" for name, value in allowed.items())
    mark = "" if version is None else f' data-version="{escape(version)}"'
    body = "".join(sections)
    code = "".join(f"<script>{script}</script>" for script in scripts)
    return (
        f'<!doctype html><html lang="en"{mark}><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{body}</main>{code}</body></html>\n"
    )


def section(name: str, title: str, body: str) -> str:
    """A part of the page with a heading, or "" for an empty body; `data-mark` tells its content.

    `name` is the anchor. A title of "" gives no heading.
    """
    if not body:
        return ""
    head = f"<h2>{escape(title)}</h2>" if title else ""
    mark = hashlib.blake2b(body.encode(), digest_size=8).hexdigest()
    return f'<section id="{name}" data-mark="{mark}">{head}{body}</section>'


def embedded(name: str, content: Any) -> str:
    """JSON for a script of the page; no text in it can end the element early."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in a card that scrolls sideways when it must; the first cell of a row names it."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f'<div class="card scroll"><table><tr>{top}</tr>{body}</table></div>'


def cell(value: Any) -> str:
    """A number or text as a table shows it."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
