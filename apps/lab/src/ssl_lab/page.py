"""`page.html`: the question, the table of means and spreads, ranks, label curves, cost."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ssl_core.files import atomic_write
from ssl_core.report.charts import line_chart
from ssl_core.report.style import CSS
from ssl_lab.experiment import Experiment, cells
from ssl_lab.results import (
    Row,
    Stat,
    collect,
    experiment_of,
    failures,
    gain,
    grouped,
    ranks,
    stat,
    write_parquet,
)

RIVALS = ("raw", "untrained", "trained")


def write_page(out: Path) -> Path:
    """Writes `page.html` and `results.parquet` from the results so far; returns the page."""
    experiment, rows = experiment_of(out), collect(out)
    if rows:
        write_parquet(rows, out / "results.parquet")
    page = out / "page.html"
    atomic_write(page, render(experiment, rows, failures(out)))
    return page


def render(experiment: Experiment, rows: Sequence[Row], failed: Sequence[tuple[str, str]]) -> str:
    """The page as one string; it loads nothing from anywhere."""
    wanted = len(cells(experiment))
    state = f"{len(rows)} of {wanted} runs" + (f", {len(failed)} failed" if failed else "")
    sections = [
        f"<h1>{escape(experiment.title)}</h1>",
        f'<p class="sub">{escape(state)}</p>',
        f'<p class="verdict">{escape(experiment.question)}</p>' if experiment.question else "",
        _table(rows),
        _ranks(rows),
        _shares(rows),
        _failed(failed),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(experiment.title)}</title><style>{CSS}</style></head>"
        f"<body>{''.join(sections)}</body></html>\n"
    )


def percent(found: Stat | None) -> str:
    """Mean ± deviation in percent."""
    if found is None:
        return "–"
    spread = f" ± {100 * found.std:.1f}" if found.count > 1 else ""
    return f"{100 * found.mean:.1f}{spread}"


def _name(key: Sequence[str | None]) -> str:
    return " · ".join(word for word in key if word)


def _rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        f"<tr><th>{escape(line[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in line[1:])
        + "</tr>"
        for line in body
    )
    return f'<div class="card scroll"><table><tr>{top}</tr>{lines}</table></div>'


def _table(rows: Sequence[Row]) -> str:
    body = []
    for key, group in grouped(rows).items():
        scores = [percent(stat(row[f"score_{name}"] for row in group)) for name in RIVALS]
        rank = stat(row["effective_rank"] for row in group)
        seconds = stat(row["wall_seconds"] for row in group)
        assert rank is not None
        assert seconds is not None
        body.append(
            [
                _name(key),
                *scores,
                percent(stat(map(gain, group))),
                f"{rank.mean:.1f}",
                f"{group[0]['steps']}",
                f"{seconds.mean:.0f}",
                f"{len(group)}",
            ]
        )
    if not body:
        return ""
    head = ["", *RIVALS, "gain", "effective rank", "steps", "seconds", "seeds"]
    note = (
        "Held-out k-NN accuracy in percent (view retrieval where there are no labels), mean and "
        "standard deviation over seeds; gain over the better of raw input and untrained encoder; "
        "seconds of training."
    )
    return f'<h2>Results</h2>{_rows(head, body)}<p class="sub">{note}</p>'


def _ranks(rows: Sequence[Row]) -> str:
    found = ranks(grouped(rows), lambda row: row["score_trained"])
    if len(found) < 2:
        return ""
    body = [
        [_name(key), f"{value:.2f}"] for key, value in sorted(found.items(), key=lambda x: x[1])
    ]
    return f"<h2>Mean rank over domains</h2>{_rows(['', 'rank'], body)}"


def _shares(rows: Sequence[Row]) -> str:
    """One chart a group: accuracy of a linear probe against the share of labels."""
    charts = []
    for key, group in grouped(rows).items():
        shares = [entry["share"] for entry in group[0]["shares"]]
        if len(shares) < 2:
            continue
        series = {}
        for name in RIVALS:
            found = [stat(row["shares"][i][name] for row in group) for i in range(len(shares))]
            points = zip(shares, found, strict=True)
            series[name] = [(100 * s, 100 * f.mean) for s, f in points if f is not None]
        charts.append(line_chart(_name(key), series))
    if not charts:
        return ""
    return (
        "<h2>Linear probe (percent) against the share of labels (percent)</h2>"
        f'<div class="grid2">{"".join(charts)}</div>'
    )


def _failed(failed: Sequence[tuple[str, str]]) -> str:
    if not failed:
        return ""
    return f"<h2>Failed</h2>{_rows(['run', 'reason'], [list(pair) for pair in failed])}"
