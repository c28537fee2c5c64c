"""Charts as inline SVG: no script, no fonts, no files; colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]
Band = tuple[float, float, float]
"""(x, low, high)."""

_WIDTH, _HEIGHT = 460, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 34


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) within [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A short tick label: 0.001, 12.5, 3k, 2M, 1e-06."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:g}M"
    if size >= 1e4:
        return f"{value / 1e3:g}k"
    return f"{value:.4g}" if size == 0 or size >= 1e-3 else f"{value:.0e}"


def thinned(points: Sequence[Point], most: int = 400) -> list[Point]:
    """Means of consecutive points, at most `most` of them; non-finite values are left out."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if len(finite) <= most:
        return finite
    size = math.ceil(len(finite) / most)
    groups = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def line_chart(
    title: str,
    series: Mapping[str, Sequence[Point]],
    *,
    zero: bool = False,
    log: bool = False,
    spread: Mapping[str, Sequence[Band]] | None = None,
    along: str = "step",
) -> str:
    """One chart with a line a series, a legend, and the last value in each line's tooltip.

    With `zero` the vertical axis starts at zero; with `log` the horizontal one is logarithmic and
    labelled at the points. `spread` holds (x, low, high) of whiskers, and with it points are
    labelled, and marked on the line; `along` names what x is. Colours repeat after ten series,
    with other dashes. Series without a finite point are left out; an empty string when none is
    left.
    """
    lines = {name: thinned(points) for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        return ""
    bands = {name: (spread or {}).get(name, ()) for name in lines}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    ys += [y for found in bands.values() for _, low, high in found for y in (low, high)]
    bottom = min(0.0, min(ys)) if zero else min(ys)
    frame = _Frame(min(xs), max(xs), *_padded(bottom, max(ys), keep_low=zero), log=log)
    exact = log or spread is not None
    body = [frame.axes(sorted(set(xs)) if exact else None)]
    for i, (name, points) in enumerate(lines.items()):
        last = f"{name}: {points[-1][1]:.4g} at {along} {points[-1][0]:.4g}"
        drawn = _curve(points, frame, dots=spread is not None) + _whiskers(bands[name], frame)
        body.append(f'<g class="{tone(i)}"><title>{escape(last)}</title>{drawn}</g>')
    return _figure(title, body, legend(list(lines)) if len(lines) > 1 else "")


def tone(place: int) -> str:
    """The classes of a series: one of ten colours, and dashes that change after each ten."""
    dashes = place // 10 % 4
    return f"c{place % 10}" + (f" d{dashes}" if dashes else "")


def legend(names: Sequence[str]) -> str:
    """A piece of each series' line with its name."""
    return "".join(
        f'<span class="{tone(i)}"><svg class="key" viewBox="0 0 24 8" aria-hidden="true">'
        f'<line class="line" x1="0" x2="24" y1="4" y2="4"/></svg><span>{escape(name)}</span></span>'
        for i, name in enumerate(names)
    )


def _curve(points: Sequence[Point], frame: _Frame, *, dots: bool) -> str:
    """A line with or without a dot at each point; a dot where there is one point only."""
    places = [(f"{frame.x(x):.1f}", f"{frame.y(y):.1f}") for x, y in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    line = f'<polyline class="line" points="{path}"/>' if len(places) > 1 else ""
    if line and not dots:
        return line
    return line + "".join(f'<circle cx="{x}" cy="{y}" r="3"/>' for x, y in places)


def _whiskers(bands: Sequence[Band], frame: _Frame) -> str:
    return "".join(
        f'<line class="dot" x1="{frame.x(x):.1f}" x2="{frame.x(x):.1f}" y1="{frame.y(low):.1f}" '
        f'y2="{frame.y(high):.1f}"/>'
        for x, low, high in bands
    )


def bars(
    rows: Sequence[tuple[str, float, str]],
    *,
    full: float,
    mark: float | None,
    strong: int | None = None,
) -> str:
    """Horizontal bars: (name, value, text), on a scale up to `full`; `mark` is a thin line.

    The bar of row `strong` (default: the last) stands out.
    """
    strong = len(rows) - 1 if strong is None else strong
    out = []
    for i, (name, value, text) in enumerate(rows):
        share = 100 * max(0.0, min(1.0, value / full)) if full > 0 and math.isfinite(value) else 0
        line = ""
        if mark is not None:
            line = f'<rect class="mark" x="{100 * mark / full:.2f}%" width="2" height="16"/>'
        kind = " strong" if i == strong else ""
        out.append(
            f'<div class="bar{kind}"><span>{escape(name)}</span><svg aria-hidden="true">'
            f'<rect class="value" width="{share:.2f}%" height="16"/>{line}</svg>'
            f"<span>{escape(text)}</span></div>"
        )
    return "".join(out)


class _Frame:
    """Maps data to the pixels of a chart."""

    def __init__(
        self, left: float, right: float, low: float, high: float, *, log: bool = False
    ) -> None:
        self.log = log
        left, right = self._along(left), self._along(right)
        self.left, self.right = left, right if right > left else left + 1
        self.low, self.high = low, high if high > low else low + 1

    def _along(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def x(self, value: float) -> float:
        share = (self._along(value) - self.left) / (self.right - self.left)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def axes(self, places: Sequence[float] | None = None) -> str:
        """Grid and labels; below, at `places` or at round numbers."""
        marks = ticks(self.left, self.right) if places is None else places
        parts = []
        for value in ticks(self.low, self.high):
            y = self.y(value)
            parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" '
                f'y2="{y:.1f}"/><text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{number(value)}</text>"
            )
        for value in marks:
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{_HEIGHT - _BOTTOM + 20}" '
                f'text-anchor="middle">{number(value)}</text>'
            )
        return "".join(parts)


def _padded(low: float, high: float, *, keep_low: bool = False) -> tuple[float, float]:
    """Limits with 5 % room; a constant gets room around it."""
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return (low if keep_low else low - room), high + room


def _figure(title: str, body: Sequence[str], legend: str) -> str:
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(body)}</svg><div class="legend">{legend}</div></figure>'
    )
