"""`page.html`: the question, tables of means and spreads, ranks, cost, what else was measured."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ssl_core.evaluation.rivals import KNN
from ssl_core.files import atomic_write
from ssl_core.report.document import document, section, table
from ssl_core.report.dots import dot_chart
from ssl_core.report.outcome import duration
from ssl_lab.experiment import Experiment, cells
from ssl_lab.measured import layers, shares, tasks
from ssl_lab.results import (
    RIVALS,
    Groups,
    Row,
    collect,
    experiment_of,
    failures,
    gain,
    grouped,
    interval,
    names_of,
    percent,
    plain,
    ranks,
    stat,
    write_parquet,
)


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
    groups = named(grouped(rows))
    return document(
        experiment.title,
        [
            _head(experiment, rows, failed),
            _results(groups),
            _ranks(rows),
            shares(groups),
            layers(groups),
            tasks(groups),
            _cost(groups),
            section("failed", "Failed", table(["run", "reason"], failed) if failed else ""),
        ],
    )


def named(groups: dict[tuple[str | None, ...], list[Row]]) -> Groups:
    """The groups by the words in which they differ."""
    return dict(zip(names_of(list(groups)), groups.values(), strict=True))


def _head(experiment: Experiment, rows: Sequence[Row], failed: Sequence[tuple[str, str]]) -> str:
    wanted = len(cells(experiment))
    words = [f"{len(rows)} of {wanted} runs" + (f", {len(failed)} failed" if failed else "")]
    if rows:
        words.append(f"{duration(sum(row['wall_seconds'] for row in rows))} of training")
    title = escape(experiment.title)
    question = f'<p class="verdict">{escape(experiment.question)}</p>'
    return (
        f'<header id="head" data-mark="{title}"><h1>{title}</h1>'
        f'<p class="sub">{escape(" · ".join(words))}</p>'
        f"{question if experiment.question else ''}</header>"
    )


def _results(groups: Groups) -> str:
    """Raw input, untrained and trained encoder, by dots and by numbers."""
    if not groups:
        return ""
    rows, dots = [], []
    for name, group in groups.items():
        found = {rival: stat(row[f"score_{rival}"] for row in group) for rival in RIVALS}
        dots.append((name, {k: interval(v) for k, v in found.items() if v is not None}))
        rank = stat(row["effective_rank"] for row in group)
        cells_ = [percent(found[rival]) for rival in RIVALS]
        line = [name, *cells_, percent(stat(map(gain, group))), plain(rank), str(len(group))]
        rows.append(line)
    kinds = {row["score_name"] for group in groups.values() for row in group}
    what = (
        "Held-out k-NN accuracy in percent"
        if kinds == {KNN}
        else "Held-out score in percent (k-NN accuracy; view retrieval where there are no labels)"
    )
    note = (
        f"{what}: mean and standard deviation over seeds. Gain is over the better of raw input and "
        "untrained encoder, seed by seed."
    )
    return section(
        "results",
        "Results",
        dot_chart(f"{what}, whiskers one standard deviation", dots)
        + '<div class="space"></div>'
        + table(["", *RIVALS, "gain", "effective rank", "seeds"], rows)
        + f'<p class="note">{note}</p>',
    )


def _ranks(rows: Sequence[Row]) -> str:
    found = ranks(grouped(rows), lambda row: row["score_trained"])
    if len(found) < 2:
        return ""
    order = sorted(found.items(), key=lambda pair: pair[1])
    names = names_of([key for key, _ in order])
    body = [[name, f"{rank:.2f}"] for name, (_, rank) in zip(names, order, strict=True)]
    note = "1 is best; within a domain the means over seeds are compared."
    return section(
        "ranks",
        "Mean rank over domains",
        table(["", "rank"], body) + f'<p class="note">{note}</p>',
    )


def _cost(groups: Groups) -> str:
    """What a run takes."""
    if not groups:
        return ""
    body = []
    for name, group in groups.items():
        seconds = stat(row["wall_seconds"] for row in group)
        first = group[0]
        per_step = stat(1000 * row["wall_seconds"] / max(1, row["steps"]) for row in group)
        body.append(
            [
                name,
                f"{first['parameters'] / 1e6:.2f} M",
                str(first["steps"]),
                plain(seconds),
                plain(per_step),
            ]
        )
    head = ["", "parameters", "steps", "seconds of training", "ms a step"]
    return section("cost", "Cost of a run", table(head, body))
