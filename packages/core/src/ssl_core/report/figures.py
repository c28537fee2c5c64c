"""The report's plots as PNG and SVG files for papers and slides, drawn by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_core.errors import UserError
from ssl_core.evaluation.rivals import RANK
from ssl_core.files import atomic_path
from ssl_core.report.compare import short_names
from ssl_core.report.curves import HEALTH, curve, split_parts
from ssl_core.report.outcome import RIVALS, number
from ssl_core.runs.folder import Run
from ssl_core.runs.summary import SCORE_WORDS

FORMATS = ("png", "svg")
_COLOURS = ("#2563c9", "#d9822b", "#2f9e6e", "#c73e54", "#7d55c7", "#8a6d3b", "#c2569f", "#6a737d")
_DASHES = ("-", "--", ":", "-.")
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "ssl",
}
"""Text stays text in SVG files, and the same run gives the same bytes."""


def write_figures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Writes `loss`, `health`, `speed`, `scores` and, for one run, `map`, each as PNG and SVG.

    Several runs share axes, a line each. What a run has no numbers for is left out. Raises
    `UserError` where matplotlib is missing or a run has not logged anything yet.
    """
    figure_class, context = _matplotlib()
    for run in runs:
        if not run.metrics():
            raise UserError(f"figures: {str(run.path)!r} has not logged anything yet")
    named = dict(zip(short_names([run.path.resolve() for run in runs]), runs, strict=True))
    files: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    with context(_STYLE):
        for name, draw in (
            ("loss", _loss),
            ("health", _health),
            ("speed", _speed),
            ("scores", _scores),
            ("map", _map),
        ):
            figure = figure_class(figsize=(6.4, 4.0), layout="constrained")
            if not draw(figure, named):
                continue
            for kind in FORMATS:
                file = folder / f"{name}.{kind}"
                metadata = {"Date": None} if kind == "svg" else {}
                with atomic_path(file) as temporary:
                    figure.savefig(temporary, dpi=200, format=kind, metadata=metadata)
                files.append(file)
    return files


def _matplotlib() -> tuple[Any, Any]:
    """`Figure` and `rc_context`; a figure without pyplot needs no display and is no global."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "figures: matplotlib is not installed; pip install 'ssl-core[figures]' "
            "(or: uv sync --extra figures)"
        ) from error
    return Figure, rc_context


def _lines(axes: Any, title: str, series: Mapping[str, Any], *, zero: bool = False) -> bool:
    """One panel; False where there is nothing to draw."""
    drawn = False
    for place, (name, points) in enumerate(series.items()):
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        if not finite:
            continue
        colour = _COLOURS[place % len(_COLOURS)]
        dashes = _DASHES[place // len(_COLOURS) % len(_DASHES)]
        axes.plot(
            *zip(*finite, strict=True), label=name, color=colour, linestyle=dashes, linewidth=1.4
        )
        drawn = True
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if zero:
        axes.set_ylim(bottom=0)
    if drawn and len(series) > 1:
        axes.legend(frameon=False, fontsize=8)
    return drawn


def _loss(figure: Any, named: Mapping[str, Run]) -> bool:
    """Loss with its parts, of several runs the loss alone; the learning rate beside it."""
    logs = {name: run.metrics() for name, run in named.items()}
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    if len(logs) == 1:
        records = next(iter(logs.values()))
        series = {name: curve(records, name) for name in split_parts(records)[0]}
    else:
        series = {name: curve(records, "loss") for name, records in logs.items()}
    rates = {name: curve(records, "lr") for name, records in logs.items()}
    _lines(right, "learning rate", rates, zero=True)
    return _lines(left, "loss", series)


def _panels(figure: Any, named: Mapping[str, Run], panels: Mapping[str, tuple[str, bool]]) -> bool:
    """One panel a logged number, a line a run."""
    logs = {name: run.metrics() for name, run in named.items()}
    shown = {
        key: words
        for key, words in panels.items()
        if any(key in record for records in logs.values() for record in records)
    }
    if not shown:
        return False
    columns = min(2, len(shown))
    grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False).flat
    for axes, (key, (title, zero)) in zip(grid, shown.items(), strict=False):
        _lines(axes, title, {n: curve(log, key) for n, log in logs.items()}, zero=zero)
    for axes in list(grid)[len(shown) :]:
        axes.set_visible(False)
    return True


def _health(figure: Any, named: Mapping[str, Run]) -> bool:
    return _panels(
        figure, named, {key: (key.replace("_", " "), zero) for key, (_, zero) in HEALTH.items()}
    )


def _speed(figure: Any, named: Mapping[str, Run]) -> bool:
    panels = {
        "samples_per_second": ("samples per second", True),
        "data_wait": ("share of time waiting for data", True),
    }
    return _panels(figure, named, panels)


def _scores(figure: Any, named: Mapping[str, Run]) -> bool:
    """Bars of the three rivals of every finished run, where all were scored alike."""
    done = {name: run.summary["score"] for name, run in named.items() if run.finished}
    kinds = {score["name"] for score in done.values()}
    if len(kinds) != 1:
        return False
    kind = kinds.pop()
    axes = figure.subplots()
    scale = 1 if kind == RANK else 100
    for place, (key, words) in enumerate(RIVALS.items()):
        values = [scale * number(score[key]) for score in done.values()]
        spots = [row + (place - 1) * 0.27 for row in range(len(done))]
        axes.bar(
            spots, values, width=0.25, label=words, color=("#9aa4ae", "#c9d3df", "#2563c9")[place]
        )
    axes.set_xticks(range(len(done)), list(done))
    side = max(0.6, 1.6 - 0.5 * len(done))  # few groups of bars stay narrow
    axes.set_xlim(-side, len(done) - 1 + side)
    axes.set_axisbelow(True)
    axes.set_ylabel(SCORE_WORDS[kind] + ("" if kind == RANK else ", %"))
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return True


def _map(figure: Any, named: Mapping[str, Run]) -> bool:
    """Every map of one run's held-out records, coloured by label, else by cluster."""
    gallery = next(iter(named.values())).gallery() if len(named) == 1 else None
    if gallery is None:
        return False
    labelled = any(label >= 0 for label in gallery["labels"])
    groups = gallery["labels"] if labelled else gallery["clusters"]
    panels = gallery["places"]
    figure.set_size_inches(3.4 * min(2, len(panels)), 3.2 * -(-len(panels) // 2))
    grid = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False).flat
    for axes, (name, points) in zip(grid, panels.items(), strict=False):
        for group in sorted(set(groups)):
            rows = [point for point, own in zip(points, groups, strict=True) if own == group]
            colour = "#9aa4ae" if group < 0 else _COLOURS[group % len(_COLOURS)]
            axes.scatter(*zip(*rows, strict=True), s=7, color=colour, linewidths=0)
        axes.set_title(name, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    return True
