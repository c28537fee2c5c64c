"""All generated pages, where they stand in the navigation, and links from page to page."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from catalogue import domains
from handbook import api, commands, methods

ROOT = Path(__file__).resolve().parents[2]
_PAGE = re.compile(r"(?<!\[)`docs/([\w./-]+\.md)`(?!\])")


def pages() -> dict[str, str]:
    """Place below the site -> Markdown of every generated page."""
    return {**methods.pages(), **api.pages(), **commands.pages()}


def methods_nav() -> list[Any]:
    """Methods by where they come from: the core first, then what one domain alone has."""
    groups: dict[str, list[dict[str, str]]] = {}
    for name, place in methods.methods(domains()).items():
        package = place.partition(".")[0]
        label = "In the core" if package == "ssl_core" else f"Of {package[4:]} alone"
        entry = {methods.heading(place): f"methods/{name}.md"}
        groups.setdefault(label, []).append(entry)
    core = groups.pop("In the core")
    rest = [{label: groups[label]} for label in sorted(groups)]
    listed = ["methods.md", {"Recipes": "methods/recipes.md"}]
    return [*listed, {"In the core": core}, *rest]


def reference_nav() -> list[Any]:
    """Commands, then what each package offers, then the core room by room."""
    rooms = [{f"ssl_core.{room}": f"reference/{room}.md"} for room in api.ROOMS]
    packages = [{name: f"reference/{name}.md"} for name in api.domain_packages()]
    return [
        {"Commands": "reference/commands.md"},
        {"ssl-lab": "reference/lab.md"},
        *packages,
        {"ssl_core": "reference/core.md"},
        *rooms,
    ]


def linked(markdown: str, place: str) -> str:
    """The page with `docs/...md` in backticks, as other readers see it, made a link."""

    def link(found: re.Match[str]) -> str:
        if not (ROOT / "docs" / found[1]).is_file():
            return found[0]
        target = os.path.relpath(found[1], os.path.dirname(place) or ".")
        return f"[`{Path(found[1]).stem}`]({target})"

    parts = re.split(r"(^ *```.*?^ *```)", markdown, flags=re.M | re.S)
    parts[::2] = [_PAGE.sub(link, part) for part in parts[::2]]
    return "".join(parts)
