"""Several runs on one page: table, scores, overlaid curves, what differs between their recipes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path, PurePath
from typing import Any

from ssl_core.errors import UserError
from ssl_core.evaluation.rivals import KNN, VIEWS
from ssl_core.files import atomic_write
from ssl_core.report.charts import bars, line_chart
from ssl_core.report.curves import HEALTH, curve
from ssl_core.report.document import cell, document, section, table
from ssl_core.report.outcome import duration, number
from ssl_core.runs.config import flat
from ssl_core.runs.folder import Run
from ssl_core.runs.summary import SCORE_WORDS, shown

_NOT_SHOWN = {"description", "domain"}


def write_comparison(runs: Sequence[Run], file: Path) -> Path:
    """Writes the page to `file`; returns it."""
    atomic_write(file, render_comparison(runs))
    return file


def render_comparison(runs: Sequence[Run]) -> str:
    """The page as one string. Raises `UserError` for fewer than two runs or one given twice."""
    if len(runs) < 2:
        raise UserError("report: a comparison needs at least two runs")
    paths = [run.path.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise UserError(f"report: {str(twice)!r} is given twice")
    named = dict(zip(short_names(paths), runs, strict=True))
    title = f"{len(runs)} runs compared"
    head = (
        f'<header id="head" data-mark="{escape(title)}"><h1>{escape(title)}</h1>'
        f'<p class="sub">{escape(", ".join(named))}</p></header>'
    )
    return document(
        title, [head, _scores(named), _table(named), _differences(named), *_curves(named)]
    )


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as few as tell them apart."""
    for count in range(1, max(len(path.parts) for path in paths)):
        names = [str(PurePath(*path.parts[-count:])) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _scores(named: Mapping[str, Run]) -> str:
    """Bars of the finished runs' scores, and what may be concluded from them."""
    done = {name: run.summary for name, run in named.items() if run.finished}
    kinds = {summary["score"]["name"] for summary in done.values()}
    if len(done) < 2 or len(kinds) > 1:
        words = (
            "Fewer than two of these runs are finished."
            if len(done) < 2
            else ("These runs were scored in different ways; their scores cannot be compared.")
        )
        return section("scores", "Scores", f'<p class="verdict">{words}</p>')
    kind = kinds.pop()
    values = {name: number(summary["score"]["trained"]) for name, summary in done.items()}
    order = sorted(values, key=lambda name: _last_if_nan(values[name]), reverse=True)
    finite = [value for value in values.values() if math.isfinite(value)]
    full = 1.0 if max(finite, default=1.0) <= 1 else max(finite)
    rows = [(name, values[name], shown(kind, values[name])) for name in order]
    words = SCORE_WORDS[kind]
    return section(
        "scores",
        f"{words[:1].upper()}{words[1:]} of the trained encoders",
        f'<p class="verdict">{escape(conclusion(done))}</p>'
        f'<div class="card">{bars(rows, full=full, mark=_chance(done), strong=0)}</div>',
    )


def _last_if_nan(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _chance(done: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Chance, where it is the same for all."""
    found = {summary.get("chance") for summary in done.values()}
    return found.pop() if len(found) == 1 else None


def conclusion(done: Mapping[str, Mapping[str, Any]]) -> str:
    """Which run is best, and whether its lead is larger than chance on so many records.

    `done` maps names to summaries with one kind of score. Two standard errors of the difference
    of two proportions are asked for, as in a run's own verdict.
    """
    facts = [summary["data"] for summary in done.values()]
    if len({(fact["fingerprint"], fact["heldout"]) for fact in facts}) > 1:
        return "These runs saw different data: their scores were not taken on the same records."
    kind = next(iter(done.values()))["score"]["name"]
    values = {name: _last_if_nan(number(s["score"]["trained"])) for name, s in done.items()}
    best, second = sorted(values, key=values.__getitem__, reverse=True)[:2]
    a, b = values[best], values[second]
    if not math.isfinite(b):
        return f"Only {best} has a finite score."
    texts = f"{shown(kind, a)} against {shown(kind, b)} of {second}"
    if kind not in (KNN, VIEWS):
        return f"Highest {SCORE_WORDS[kind]}: {best} with {texts}."
    count = done[best]["queries"]
    noise = 2 * math.sqrt((a * (1 - a) + b * (1 - b)) / max(1, count))
    if a - b <= noise:
        return (
            f"No clear winner: {best} has {texts}, within what {count} held-out records can show "
            f"(±{100 * noise:.1f} points). One run a recipe says nothing of other seeds."
        )
    return f"{best} is best: {texts} ({count} held out). One run says nothing of other seeds."


def _table(named: Mapping[str, Run]) -> str:
    """Facts of the runs, one a column."""
    head = ["run", "method", "encoder", "parameters", "steps", "score", "untrained", "raw input"]
    head += ["effective rank", "samples/s", "training", "device", "state"]
    rows = []
    for name, run in named.items():
        recipe = run.recipe
        first = [name, recipe.method.name, recipe.encoder.name]
        if run.finished:
            summary = run.summary
            kind = summary["score"]["name"]
            scores = [shown(kind, summary["score"][key]) for key in ("trained", "untrained", "raw")]
            rows.append(
                [
                    *first,
                    f"{summary['parameters'] / 1e6:.2f} M",
                    str(summary["steps"]),
                    *scores,
                    shown("effective_rank", summary["effective_rank"]),
                    f"{summary['samples_per_second']:.0f}",
                    duration(summary["wall_seconds"]),
                    summary["device"],
                    str(summary.get("health", "finished")),
                ]
            )
        else:
            last = (run.metrics() or [{"step": 0}])[-1]
            rows.append(
                [*first, "–", f"{last['step']} of {recipe.train.steps}", *["–"] * 7, "unfinished"]
            )
    return section("runs", "The runs", table(*_turned(head, rows)))


def _turned(
    head: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """A table with rows and columns exchanged."""
    first, *rest = (list(column) for column in zip(head, *rows, strict=True))
    return ["", *first[1:]], rest


def _differences(named: Mapping[str, Run]) -> str:
    """What differs: recipes first, then versions and machine."""
    recipes = {name: flat(run.recipe.model_dump(mode="json")) for name, run in named.items()}
    others = {
        name: flat({key: run.summary.get(key, {}) for key in ("versions", "machine")})
        if run.finished
        else {}
        for name, run in named.items()
    }
    rows = [*differing(recipes), *differing({n: o for n, o in others.items() if o})]
    body = (
        table(
            ["", *named], [[key, *(cells.get(name, "–") for name in named)] for key, cells in rows]
        )
        if rows
        else '<p class="note">Nothing: the recipes are equal.</p>'
    )
    return section("differences", "What differs", body)


def differing(values: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    """(key, name -> value as text) for every key that is not the same everywhere."""
    keys = sorted({key for found in values.values() for key in found})
    rows = []
    for key in keys:
        cells = {name: cell(found.get(key)) for name, found in values.items()}
        if key not in _NOT_SHOWN and len(set(cells.values())) > 1:
            rows.append((key, cells))
    return rows


def _curves(named: Mapping[str, Run]) -> list[str]:
    """One chart a number, one line a run."""
    logs = {name: run.metrics() for name, run in named.items()}

    def chart(title: str, key: str, *, zero: bool = True) -> str:
        return line_chart(title, {n: curve(log, key) for n, log in logs.items()}, zero=zero)

    methods = {run.recipe.method.name for run in named.values()}
    note = (
        ""
        if len(methods) == 1
        else (
            '<p class="note">Losses of different methods are different numbers: only their shapes '
            "compare.</p>"
        )
    )
    training = [
        chart("Loss", "loss", zero=False),
        chart("Score while training", "score", zero=False),
        chart("Gradient norm", "grad_norm"),
        chart("Learning rate", "lr"),
    ]
    health = [chart(title, key, zero=zero) for key, (title, zero) in HEALTH.items()]
    speed = [
        chart("Samples per second", "samples_per_second"),
        chart("Share of time spent waiting for data", "data_wait"),
    ]
    return [
        section(name, title, more + f'<div class="grid2">{"".join(charts)}</div>')
        for name, title, more, charts in (
            ("training", "Training", note, training),
            ("health", "Health of the representations", "", health),
            ("speed", "Speed", "", speed),
        )
        if any(charts)
    ]
