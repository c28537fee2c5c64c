"""Rows of dots on one scale: how several numbers compare in each of many cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ssl_core.report.charts import legend, number, ticks, tone

_WIDTH, _NAME, _EDGE, _FOOT = 460, 20, 12, 26

Interval = tuple[float, float, float]
"""(value, low, high)."""


def dot_chart(title: str, rows: Sequence[tuple[str, Mapping[str, Interval]]]) -> str:
    """A row each: its name, and on a scale below it a dot a series with its whisker.

    Series have one colour and one height in all rows, so that whiskers do not hide one another;
    the names of rows stand above, so that long ones fit a telephone. "" without rows.
    """
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    if not names:
        return ""
    every = [value for _, values in rows for found in values.values() for value in found]
    low, high = min(every), max(every)
    room = 0.04 * (high - low) or 1.0
    low, high = low - room if low else 0.0, high + room

    def x(value: float) -> str:
        return f"{_EDGE + (value - low) / (high - low) * (_WIDTH - 2 * _EDGE):.1f}"

    tall = _NAME + (len(names) - 1) * 7 + 14
    height = tall * len(rows) + _FOOT
    body = []
    for value in ticks(low, high, 6):
        body.append(
            f'<line class="grid" x1="{x(value)}" x2="{x(value)}" y1="0" y2="{height - _FOOT}"/>'
            f'<text x="{x(value)}" y="{height - 8}" text-anchor="middle">{number(value)}</text>'
        )
    for row, (name, values) in enumerate(rows):
        top = row * tall
        body.append(f'<text class="name" x="{_EDGE}" y="{top + 14}">{escape(name)}</text>')
        for place, series in enumerate(names):
            if series in values:
                value, least, most = values[series]
                y = top + _NAME + 3 + 7 * place
                body.append(
                    f'<g class="{tone(place)}"><title>{escape(f"{series}: {value:.4g}")}</title>'
                    f'<line class="dot" x1="{x(least)}" x2="{x(most)}" y1="{y}" y2="{y}"/>'
                    f'<circle cx="{x(value)}" cy="{y}" r="4"/></g>'
                )
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg class="dots" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f'{"".join(body)}</svg><div class="legend">{legend(names)}</div></figure>'
    )
