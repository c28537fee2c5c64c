"""`report.html`: verdict, rivals, curves, map of the embeddings, recipe, environment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ssl_core.files import atomic_write
from ssl_core.report.atlas import atlas
from ssl_core.report.curves import training
from ssl_core.report.document import document, section, table
from ssl_core.report.outcome import asked, duration, facts, measurements, scores, unreadable
from ssl_core.report.pictures import figure
from ssl_core.report.style import asset
from ssl_core.report.tuned import tuned
from ssl_core.runs.config import to_yaml
from ssl_core.runs.folder import Run
from ssl_core.runs.progress import parts_of

_PARTS = {
    "scores": "Score",
    "training": "Training",
    "health": "Health",
    "speed": "Speed",
    "map": "Map",
    "seen": "Views",
    "measured": "Measurements",
    "tuned": "Fine-tuned",
    "reproduce": "Reproduce",
}
"""Anchors that the page's first line names, in order."""
_MARKS = (
    "▢ is hidden from the encoder. <mark>Marked</mark>: chosen, and as it is or rightly guessed. "
    "<del>Struck</del>: put in the place of the <ins>underlined</ins> word behind it."
)


def write_report(run: Run) -> Path:
    """Writes `report.html` from the files of a run; returns its path.

    A run that is still training, or was interrupted, is shown as far as it came.
    """
    atomic_write(run.report_file, render(run))
    return run.report_file


def render(run: Run, *, scripts: Sequence[str] = (), version: str | None = None) -> str:
    """The page as one string: nothing is loaded from anywhere.

    `scripts` and `version` are for a server that keeps the page fresh (see `report.watch`).
    """
    origin = run.facts if run.facts_file.is_file() else {}
    title = f"{run.recipe.method.name} on {run.recipe.domain}"
    records = run.metrics()
    body = [
        *(_outcome(run) if run.finished else [_underway(run, records)]),
        training(records, run.recipe),
        atlas(run),
        _seen(run),
        measurements(run.summary["rivals"]) if run.finished else "",
        tuned(run),
        unreadable(run.corrupt()),
        _reproduce(run, origin),
    ]
    head = _head(run, title, origin, body, live=version is not None)
    return document(title, [head, *body], scripts=[asset("map.js"), *scripts], version=version)


def _head(
    run: Run, title: str, origin: Mapping[str, Any], body: Sequence[str], *, live: bool
) -> str:
    whole = "".join(body)
    links = "".join(
        f'<a href="#{name}">{words}</a>'
        for name, words in _PARTS.items()
        if f'<section id="{name}"' in whole
    )
    back = '<a href="/">All runs</a><span class="state" id="live-state">live</span>' if live else ""
    return (
        f'<header id="head" data-mark="{escape(title)}{run.finished}{len(links)}">'
        f"<h1>{escape(title)}</h1>"
        f'<p class="sub">{escape(_subtitle(run, origin))}</p><nav>{back}{links}</nav></header>'
    )


def _subtitle(run: Run, origin: Mapping[str, Any]) -> str:
    recipe = run.recipe
    words = [recipe.encoder.name]
    if run.finished:
        words[0] += f", {run.summary['parameters'] / 1e6:.2f} M parameters"
    if origin:
        data = origin["data"]
        kind = origin["sample_kind"]
        words.append(f"{data['train']} {kind} to train on, {data['heldout']} held out")
    words += [f"{recipe.train.steps} steps", f"seed {recipe.train.seed}"]
    return " · ".join(words)


def _outcome(run: Run) -> list[str]:
    """Verdict and scores of a finished run."""
    verdict = f'<p class="verdict">{escape(run.summary["verdict"])}</p>'
    return [
        section("verdict", "", verdict),
        asked(run.summary.get("more", {})),
        scores(run.summary),
    ]


def _underway(run: Run, records: Sequence[Mapping[str, Any]]) -> str:
    """How far an unfinished run is."""
    if not records:
        words = "Training has not reached its first log point."
        return section("verdict", "", f'<p class="verdict">{words}</p>')
    last = records[-1]
    left = (last["steps"] - last["step"]) * last["step_ms"] / 1000
    words = f"Step {last['step']} of {last['steps']}, {last['verdict']}."
    ahead = f"About {duration(left)} of training left" if left else "Evaluation comes next"
    words += f" {ahead}; if it no longer runs, `ssl-{run.recipe.domain} resume {run.path}` goes on."
    shown = [
        *((f"{value:.4g}", name) for name, value in [*parts_of(last).items()][:1] if value),
        (f"{last['samples_per_second']:.0f}", "samples per second"),
        (f"{100 * last['data_wait']:.0f} %", "waiting for data"),
        (str(last["skipped"]), "steps skipped"),
    ]
    return section("verdict", "", f'<p class="verdict">{escape(words)}</p>{facts(shown)}')


def _seen(run: Run) -> str:
    """Views, hidden parts and predictions: one column each, a record a row."""
    columns = [figure(caption, file.read_bytes()) for caption, file in run.pictures()]
    columns += [
        f'<figure class="told"><figcaption>{escape(caption)}</figcaption>'
        + "".join(f"<p>{marked(text)}</p>" for text in texts)
        + "</figure>"
        for caption, texts in run.texts()
    ]
    guesses = any("⟨" in text for _, texts in run.texts() for text in texts)
    note = f'<p class="note">{_MARKS}</p>' if guesses else ""
    title = "What the method sees: the same held-out records in every column"
    return section(
        "seen", title, f'<div class="columns">{"".join(columns)}</div>{note}' if columns else ""
    )


def marked(text: str) -> str:
    """What a domain tells (`Domain.words`) as HTML, its marks as elements."""
    shown = re.sub(r"⟨([^⟨⟩|]*)\|([^⟨⟩]*)⟩", r"<del>\1</del> <ins>\2</ins>", escape(text))
    return re.sub(r"⟨([^⟨⟩]*)⟩", r"<mark>\1</mark>", shown)


def _reproduce(run: Run, origin: Mapping[str, Any]) -> str:
    """Command, recipe, machine and versions."""
    command = f"ssl-{run.recipe.domain} pretrain --recipe recipe.yaml --out another-folder"
    world = int(origin.get("world", 1))
    if world > 1:
        program = f"ssl_{run.recipe.domain}"
        command = command.replace(
            f"ssl-{run.recipe.domain}", f"torchrun --nproc-per-node {world} -m {program}"
        )
    summary = run.summary if run.finished else {}
    rows = [
        ["data", str(run.recipe.data.path or "embedded")],
        ["data fingerprint", str(origin.get("data", {}).get("fingerprint", "–"))],
        ["processes", str(world)],
        *([name, str(value)] for name, value in summary.get("machine", {}).items()),
        *([name, str(value)] for name, value in summary.get("versions", {}).items()),
    ]
    return section(
        "reproduce",
        "Reproduce",
        f"<pre>{escape(command)}</pre>"
        "<details><summary>recipe.yaml</summary>"
        f"<pre>{escape(to_yaml(run.recipe))}</pre></details>"
        f"<details><summary>Environment</summary>{table(['', ''], rows)}</details>",
    )
