"""What came out of a run: scores of the three rivals, facts, all measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ssl_core.report.charts import bars
from ssl_core.report.document import cell, section, table
from ssl_core.runs.config import flat
from ssl_core.runs.summary import SCORE_WORDS, shown

RIVALS = {"raw": "raw input", "untrained": "untrained encoder", "trained": "trained encoder"}
_MOST_CORRUPT = 50


def number(value: float | None) -> float:
    """JSON stores non-finite numbers as null."""
    return math.nan if value is None else float(value)


def scores(summary: Mapping[str, Any]) -> str:
    """The rivals' scores as bars, and the facts below them."""
    score = summary["score"]
    values = {key: number(score[key]) for key in RIVALS}
    rows = [(RIVALS[key], value, shown(score["name"], value)) for key, value in values.items()]
    finite = [value for value in values.values() if math.isfinite(value)]
    full = 1.0 if max(finite, default=1.0) <= 1 else max(finite)
    chance = summary.get("chance")
    note = "" if chance is None else f" The line marks chance ({shown(score['name'], chance)})."
    words = SCORE_WORDS[score["name"]]
    return section(
        "scores",
        f"{words[:1].upper()}{words[1:]} on {summary['queries']} held-out records",
        f'<div class="card">{bars(rows, full=full, mark=chance)}'
        f'<p class="note">Higher is better.{escape(note)}</p></div>{facts(_facts(summary))}',
    )


def asked(more: Mapping[str, Mapping[str, Any]]) -> str:
    """Bars of what the run was asked to measure beyond its own score, before that."""
    return "".join(_asked(name, found["score"]) for name, found in more.items() if "score" in found)


def _asked(key: str, score: Mapping[str, Any]) -> str:
    named = {**score["rivals"], "trained encoder": score["trained"]}
    values = {name: number(value) for name, value in named.items()}
    rows = [(name, value, f"{value:.3f}") for name, value in values.items()]
    finite = [value for value in values.values() if math.isfinite(value)]
    full = 1.0 if max(finite, default=1.0) <= 1 else max(finite)
    noise = score["noise"]
    apart = "" if noise is None else f" Two standard errors of the difference: {noise:.3f}."
    return section(
        f"asked-{key}",
        score["name"],
        f'<div class="card">{bars(rows, full=full, mark=None)}'
        f'<p class="note">Higher is better.{apart}</p></div>',
    )


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    trained = summary["rivals"]["trained"]
    return [
        (f"{number(summary['effective_rank']):.1f}", f"effective rank of {trained['dim']:.0f}"),
        (f"{summary['samples_per_second']:.0f}", "samples per second"),
        (duration(summary["wall_seconds"]), f"training on {summary['device']}"),
        (str(summary["skipped"]), "steps skipped"),
        (str(summary["corrupt"]), "records unreadable"),
    ]


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Numbers in small cards: (number, what it is)."""
    cells = "".join(f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in pairs)
    return f'<div class="facts">{cells}</div>'


def duration(seconds: float) -> str:
    """Seconds in words: 3 h 4 min, 2 min 5 s, 8 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def measurements(rivals: Mapping[str, Mapping[str, Any]]) -> str:
    """Everything measured, one column a rival."""
    found = {key: flat(values) for key, values in rivals.items()}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    rows = [
        [
            name.replace("_", " ").replace(".", " "),
            *(cell(values.get(name)) for values in found.values()),
        ]
        for name in names
    ]
    return section(
        "measured", "All measurements", table(["", *map(RIVALS.__getitem__, found)], rows)
    )


def unreadable(entries: Sequence[Mapping[str, Any]]) -> str:
    """Records that could not be read, with reasons; the first of many."""
    rows = [[str(e.get("key")), str(e.get("reason"))] for e in entries[:_MOST_CORRUPT]]
    more = len(entries) - len(rows)
    rest = f'<p class="note">and {more} more in corrupt.jsonl</p>' if more else ""
    body = table(["record", "reason"], rows) + rest if rows else ""
    return section("unreadable", "Records that could not be read", body)
