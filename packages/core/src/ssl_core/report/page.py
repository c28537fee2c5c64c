"""`report.html`: verdict, rivals, curves, maps of the embeddings, recipe, versions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ssl_core.files import atomic_write
from ssl_core.report import pictures
from ssl_core.report.charts import Point, bars, line_chart, scatter
from ssl_core.report.style import CSS
from ssl_core.runs.config import to_yaml
from ssl_core.runs.folder import Run
from ssl_core.runs.progress import parts_of
from ssl_core.runs.summary import SCORE_WORDS, shown

_RIVALS = {"raw": "raw input", "untrained": "untrained encoder", "trained": "trained encoder"}
_MOST_CORRUPT = 50


def write_report(run: Run) -> Path:
    """Writes `report.html` from the files of a finished run; returns its path."""
    atomic_write(run.report_file, render(run))
    return run.report_file


def render(run: Run) -> str:
    """The page as one string: no script, and nothing is loaded from anywhere."""
    summary, records = run.summary, run.metrics()
    title = f"{summary['method']} on {summary['domain']}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="sub">{escape(_subtitle(summary, run))}</p>',
        f'<p class="verdict">{escape(summary["verdict"])}</p>',
        _scores(summary),
        _facts(summary),
        _curves(records),
        pictures.section(run.pictures()),
        _maps(summary),
        _rival_table(summary["rivals"]),
        _corrupt(run.corrupt()),
        _recipe(run),
        _versions(summary["versions"]),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def _subtitle(summary: Mapping[str, Any], run: Run) -> str:
    data = summary["data"]
    return (
        f"{summary['encoder']}, {summary['parameters'] / 1e6:.2f} M parameters · "
        f"{data['train']} {run.facts['sample_kind']} to train on, {data['heldout']} held out · "
        f"{summary['steps']} steps · seed {summary['seed']}"
    )


def _headline(words: str) -> str:
    """The first letter large, the others as they are (k-NN)."""
    return words[:1].upper() + words[1:]


def _scores(summary: Mapping[str, Any]) -> str:
    score = summary["score"]
    values = {key: _value(score[key]) for key in _RIVALS}
    rows = [(_RIVALS[key], value, shown(score["name"], value)) for key, value in values.items()]
    finite = [value for value in values.values() if math.isfinite(value)]
    full = 1.0 if max(finite, default=1.0) <= 1 else max(finite)
    chance = summary.get("chance")
    note = "" if chance is None else f" The line marks chance ({shown(score['name'], chance)})."
    return (
        f"<h2>{escape(_headline(SCORE_WORDS[score['name']]))} on {summary['queries']} "
        f'held-out records</h2><div class="card">{bars(rows, full=full, mark=chance)}'
        f'<p class="sub" style="margin:8px 0 0">Higher is better.{escape(note)}</p></div>'
    )


def _facts(summary: Mapping[str, Any]) -> str:
    trained = summary["rivals"]["trained"]
    facts = [
        (f"{_value(summary['effective_rank']):.1f}", f"effective rank of {trained['dim']:.0f}"),
        (f"{summary['samples_per_second']:.0f}", "samples per second"),
        (_duration(summary["wall_seconds"]), f"training on {summary['device']}"),
        (str(summary["skipped"]), "steps skipped"),
        (str(summary["corrupt"]), "records unreadable"),
    ]
    cells = "".join(f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in facts)
    return f'<div class="facts">{cells}</div>'


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _value(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _curve(records: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    return [(record["step"], _value(record[name])) for record in records if name in record]


def _curves(records: Sequence[Mapping[str, Any]]) -> str:
    if not records:
        return ""
    names = list(dict.fromkeys(name for record in records for name in parts_of(record)))
    if len(names) == 2:  # a single part is the loss itself
        names = names[:1]
    charts = [
        line_chart("Loss and its parts", {name: _curve(records, name) for name in names}),
        line_chart("Effective rank", {"rank": _curve(records, "effective_rank")}, zero=True),
        line_chart("Learning rate", {"lr": _curve(records, "lr")}, zero=True),
        line_chart("Gradient norm", {"norm": _curve(records, "grad_norm")}, zero=True),
        line_chart("Score while training", {"score": _curve(records, "score")}),
        line_chart(
            "Samples per second", {"rate": _curve(records, "samples_per_second")}, zero=True
        ),
    ]
    return f'<h2>Training</h2><div class="grid2">{"".join(charts)}</div>'


def _maps(summary: Mapping[str, Any]) -> str:
    names = [str(name) for name in summary["data"]["classes"] or []]
    charts = [
        scatter(
            _RIVALS[key].capitalize(),
            [(point[0], point[1]) for point in found["points"]],
            found["labels"],
            names,
        )
        for key, found in summary["maps"].items()
    ]
    if not any(charts):
        return ""
    return (
        "<h2>Held-out embeddings on their two principal axes</h2>"
        f'<div class="grid2">{"".join(charts)}</div>'
    )


def _rival_table(rivals: Mapping[str, Mapping[str, Any]]) -> str:
    """Everything measured, one column a rival."""
    flat = {key: _flat(values) for key, values in rivals.items()}
    names = list(dict.fromkeys(name for values in flat.values() for name in values))
    head = "".join(f"<th>{escape(_RIVALS[key])}</th>" for key in flat)
    rows = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th>"
        + "".join(f"<td>{escape(_cell(values.get(name)))}</td>" for values in flat.values())
        + "</tr>"
        for name in names
    )
    return (
        '<h2>All measurements</h2><div class="card scroll"><table>'
        f"<tr><th></th>{head}</tr>{rows}</table></div>"
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            out.update(_flat(value, f"{prefix}{name} "))
        else:
            out[prefix + name] = value
    return out


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _corrupt(entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return ""
    rows = "".join(
        f"<tr><td>{escape(str(entry.get('key')))}</td><td>{escape(str(entry.get('reason')))}</td></tr>"
        for entry in entries[:_MOST_CORRUPT]
    )
    more = len(entries) - _MOST_CORRUPT
    rest = f'<p class="sub">and {more} more in corrupt.jsonl</p>' if more > 0 else ""
    return (
        '<h2>Records that could not be read</h2><div class="card scroll"><table>'
        f"<tr><th>record</th><th>reason</th></tr>{rows}</table>{rest}</div>"
    )


def _recipe(run: Run) -> str:
    command = f"ssl-{run.recipe.domain} pretrain --recipe recipe.yaml --out another-folder"
    return (
        f"<h2>Reproduce</h2><pre>{escape(command)}</pre>"
        f"<details><summary>recipe.yaml</summary><pre>{escape(to_yaml(run.recipe))}</pre></details>"
    )


def _versions(versions: Mapping[str, str]) -> str:
    text = " · ".join(f"{name} {version}" for name, version in versions.items())
    return f'<p class="sub" style="margin-top:32px">{escape(text)}</p>'
