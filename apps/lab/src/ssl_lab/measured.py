"""Sections of the page for what only some experiments measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssl_core.report.charts import Band, Point, line_chart
from ssl_core.report.document import section, table
from ssl_core.report.dots import dot_chart
from ssl_lab.results import RIVALS, Groups, Row, Stat, interval, percent, plain, stat

Number = Callable[[Row], float | None]


def shares(groups: Groups) -> str:
    """A linear probe against the share of labels: a chart a group, and one table."""
    charts, body, known = [], [], []
    for name, group in groups.items():
        known = [entry["share"] for entry in group[0]["shares"]]
        if not known:
            continue
        found = {
            rival: [stat(row["shares"][i][rival] for row in group) for i in range(len(known))]
            for rival in RIVALS
        }
        if len(known) > 1:
            charts.append(_curves(name, [100 * share for share in known], found, log=True))
        body += [[f"{name} · {rival}", *map(percent, stats)] for rival, stats in found.items()]
    if not body:
        return ""
    words = (
        '<p class="note">The encoder saw all records; the probe sees the labels of a share of each '
        "class, at least one.</p>"
    )
    return section(
        "shares",
        "Linear probe, by the percentage of labels it sees",
        f'<div class="grid2">{"".join(charts)}</div><div class="space"></div>'
        + table(["", *(f"{100 * share:g} %" for share in known)], body)
        + words,
    )


def layers(groups: Groups) -> str:
    """k-NN, probe and effective rank before the projection head and after each of its layers."""
    having = {name: group for name, group in groups.items() if group[0].get("layers")}
    if not having:
        return ""
    body, charts = [], []
    for name, group in having.items():
        dots = []
        for place, entry in enumerate(group[0]["layers"]):
            knn, probe, rank = (
                stat(row["layers"][place][key] for row in group)
                for key in ("knn", "probe", "effective_rank")
            )
            numbers = [percent(knn), percent(probe), plain(rank), str(entry["dim"])]
            body.append([f"{name} · {entry['layer']}", *numbers])
            shown = {"k-NN": knn, "linear probe": probe}
            dots.append(
                (entry["layer"], {k: interval(v) for k, v in shown.items() if v is not None})
            )
        charts.append(dot_chart(name, dots))
    note = (
        "Accuracy in percent. A probe standardises its features, so fixed weights change nothing "
        "it sees; k-NN and effective rank do not."
    )
    return section(
        "layers",
        "Before, inside and behind the projection head",
        f'<div class="grid2">{"".join(charts)}</div><div class="space"></div>'
        + table(["", "k-NN", "linear probe", "effective rank", "dimensions"], body)
        + f'<p class="note">{note}</p>',
    )


def tasks(groups: Groups) -> str:
    """Accuracy on every task after every task, what was forgotten, and the rates."""
    having = {name: group for name, group in groups.items() if group[0].get("tasks")}
    if not having:
        return ""
    count = len(next(iter(having.values()))[0]["tasks"]["after"])
    summary, body, over = [], [], {}
    for name, group in having.items():
        average, lost = _of(group, "average"), _of(group, "forgetting")
        every = [stat(row["tasks"]["all"][i] for row in group) for i in range(count)]
        over[name] = every
        summary.append([name, percent(average), percent(lost), *map(percent, every)])
        for label in ("raw", "untrained"):
            base = [stat(row["tasks"][label][j] for row in group) for j in range(count)]
            body.append([f"{name} · {label}", *map(percent, base)])
        for i in range(count):
            after = [stat(row["tasks"]["after"][i][j] for row in group) for j in range(count)]
            body.append([f"{name} · after task {i + 1}", *map(percent, after)])
    numbers = [float(i) for i in range(1, count + 1)]
    rates = {name: [(s, r) for s, r in group[0]["rates"]] for name, group in having.items()}
    charts = [
        _curves("k-NN accuracy over all classes, by tasks learned", numbers, over, along="task"),
        line_chart("Learning rate (last run of the first seed)", rates, zero=True),
    ]
    head = ["", "average", "forgetting", *(f"all, after {i + 1}" for i in range(count))]
    note = (
        "Average: mean of the accuracies within the tasks, at the end. Forgetting: by how much "
        "earlier tasks fell below their best, negative where they went on improving. All: over all "
        "classes at once. Annealed copies are scored where a schedule anneals."
    )
    return section(
        "tasks",
        "Task after task",
        f'<div class="grid2">{"".join(charts)}</div><div class="space"></div>'
        + table(head, summary)
        + f'<p class="note">{note}</p><h3>k-NN accuracy within each task</h3>'
        + table(["", *(f"task {i + 1}" for i in range(count))], body),
    )


def _of(group: Sequence[Row], key: str) -> Stat | None:
    return stat(row["tasks"][key] for row in group)


def _curves(
    title: str,
    xs: Sequence[float],
    found: Mapping[str, Sequence[Stat | None]],
    **options: Any,
) -> str:
    """Means in percent with whiskers of one standard deviation."""
    lines: dict[str, list[Point]] = {}
    bands: dict[str, list[Band]] = {}
    for name, stats in found.items():
        known = [(x, interval(s)) for x, s in zip(xs, stats, strict=True) if s is not None]
        lines[name] = [(x, value) for x, (value, _, _) in known]
        bands[name] = [(x, low, high) for x, (_, low, high) in known if low < high]
    options = {"along": "percent of labels", **options}
    return line_chart(title, lines, spread=bands, **options)
