"""The report's style sheet: light and dark, readable on paper and on a telephone."""

from __future__ import annotations

from importlib import resources


def asset(name: str) -> str:
    """The text of a style sheet or script of the report."""
    return (resources.files("ssl_core.report") / "assets" / name).read_text("utf-8")


CSS = asset("page.css")
