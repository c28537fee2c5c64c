"""The map of held-out records, and their nearest neighbours: points.json as a part of the page."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ssl_core.report.document import embedded, section
from ssl_core.runs.folder import Run

_WIDTH, _HEIGHT, _ROOM = 640, 440, 14
_EXAMPLES = 8
"""Records of the gallery of neighbours."""


def atlas(run: Run) -> str:
    """The sections with map and neighbours; "" where the run has no gallery."""
    points = run.gallery()
    if points is None:
        return ""
    places = {name: scaled(found) for name, found in points["places"].items()}
    data = {**points, "places": places, "examples": examples(points["labels"])}
    colours = ["label", "cluster"] if any(label >= 0 for label in points["labels"]) else ["cluster"]
    first = next(iter(places))
    sheet = base64.b64encode(run.sprite_file.read_bytes()).decode() if "cell" in points else ""
    picture = f'<img id="map-sheet" class="gone" alt="" src="data:image/png;base64,{sheet}">'
    keys = "arrow keys go from point to point, Enter holds one, Escape lets it go"
    body = (
        '<div class="tools needs-script gone">'
        f"<label>Map {_choice('map-place', places)}</label>"
        f"<label>Colour by {_choice('map-colour', colours)}</label></div>"
        '<div class="atlas"><div class="card">'
        f'<svg id="map-plane" viewBox="0 0 {_WIDTH} {_HEIGHT}" tabindex="0" role="application" '
        f'aria-label="Map of {len(points["keys"])} held-out records; {keys}">'
        f"{_dots(places[first], points['labels'])}</svg>"
        f'<div class="legend" id="map-legend"></div><p class="note needs-script gone">Point at, or '
        f"with the keyboard: {keys}.</p></div>"
        '<div class="card point" id="map-card" aria-live="polite"><p class="note">Every dot is a '
        "held-out record; near dots are alike to the encoder.</p></div></div>"
        f"{picture if sheet else ''}{embedded('map-data', data)}"
        '<h2>Nearest neighbours</h2><p class="note">Held-out records and those nearest to each by '
        'the trained encoder; a dashed frame is another class.</p><div class="card" '
        'id="neighbours"></div>'
    )
    return section("map", "Held-out records as the encoder sees them", body)


def scaled(points: Sequence[Sequence[float]]) -> list[list[float]]:
    """Points in the pixels of the map: both axes fill it."""
    out = []
    columns = [list(column) for column in zip(*points, strict=True)]
    limits = [(min(column), max(column)) for column in columns]
    for point in points:
        place = []
        for value, (low, high), size in zip(point, limits, (_WIDTH, _HEIGHT), strict=True):
            share = (value - low) / (high - low) if high > low else 0.5
            place.append(round(_ROOM + share * (size - 2 * _ROOM), 1))
        out.append([place[0], round(_HEIGHT - place[1], 1)])
    return out


def examples(labels: Sequence[int], count: int = _EXAMPLES) -> list[int]:
    """Rows spread over the classes: one of each in turn, from the middle of its rows."""
    groups: Mapping[int, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        groups[label].append(row)
    each = -(-count // len(groups)) if groups else 0
    picked = [_spread(rows, min(each, len(rows))) for _, rows in sorted(groups.items())]
    turns = [row for turn in range(each) for rows in picked for row in rows[turn : turn + 1]]
    return turns[:count]


def _spread(rows: Sequence[int], count: int) -> list[int]:
    """`count` of the rows, each from the middle of an equal part of them."""
    return [rows[(2 * part + 1) * len(rows) // (2 * count)] for part in range(count)]


def _dots(points: Sequence[Sequence[float]], labels: Sequence[int]) -> str:
    return "".join(
        f'<circle class="{_tone(label)}" cx="{x}" cy="{y}" r="4"/>'
        for (x, y), label in zip(points, labels, strict=True)
    )


def _tone(group: int) -> str:
    """One of ten colours; every second ten are rings. The script's `tone` says the same."""
    if group < 0:
        return "none"
    return f"c{group % 10}" + (" ring" if group // 10 % 2 else "")


def _choice(name: str, values: Any) -> str:
    options = "".join(f"<option>{escape(value)}</option>" for value in values)
    return f'<select id="{name}">{options}</select>'
