"""The list of runs that a watching server starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from ssl_core.errors import SSLError
from ssl_core.report.document import document, section
from ssl_core.runs.folder import Run
from ssl_core.runs.summary import SCORE_WORDS, shown


def render_index(
    runs: Mapping[str, Run], root: Path, *, scripts: Sequence[str], version: str
) -> str:
    """The page: one row a run, with how far it is and what came out."""
    title = f"Runs in {root}"
    head = (
        f'<header id="head" data-mark="1"><h1>{escape(title)}</h1>'
        '<p class="sub">Pages follow the runs while they train. '
        '<span class="state" id="live-state">live</span></p></header>'
    )
    names = ("run", "outcome", "step", "domain", "method", "encoder")
    top = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(_row(name, run) for name, run in runs.items())
    body = (
        f'<div class="card scroll"><table class="index"><tr>{top}</tr>{rows}</table></div>'
        if rows
        else '<p class="verdict">No run here yet; one appears as soon as it starts.</p>'
    )
    return document(title, [head, section("runs", "", body)], scripts=scripts, version=version)


def _row(name: str, run: Run) -> str:
    try:
        cells = _cells(run)
    except (SSLError, OSError, ValueError, KeyError) as error:
        cells = [f"cannot be read: {error}", "", "", "", ""]
    link = f'<a href="/run/{quote(name, safe="")}/">{escape(name)}</a>'
    return f"<tr><td>{link}</td>{''.join(f'<td>{escape(text)}</td>' for text in cells)}</tr>"


def _cells(run: Run) -> list[str]:
    recipe = run.recipe
    names = [recipe.domain, recipe.method.name, recipe.encoder.name]
    steps = recipe.train.steps
    if run.finished:
        score = run.summary["score"]
        words = SCORE_WORDS[score["name"]]
        texts = {key: shown(score["name"], score[key]) for key in ("trained", "untrained")}
        outcome = f"{words} {texts['trained']} ({texts['untrained']} untrained)"
        return [outcome, f"{steps} of {steps}", *names]
    records = run.metrics()
    last = records[-1] if records else {"step": 0, "verdict": "no log yet"}
    return [str(last["verdict"]), f"{last['step']} of {steps}", *names]
