"""What networks fine-tuned from a run reach: tables, and pictures of what they answer."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from ssl_core.files import read_json
from ssl_core.report.document import cell, section, table
from ssl_core.report.pictures import figure
from ssl_core.runs.folder import Run


def tuned(run: Run) -> str:
    """A section on the folders in the run that `finetune` wrote; empty where there are none."""
    return section("tuned", "Fine-tuned from this run", "".join(map(_one, run.finetuned())))


def _one(folder: Path) -> str:
    found = read_json(folder / "summary.json")
    shown = Run(folder).pictures()
    pictures = "".join(figure(caption, file.read_bytes()) for caption, file in shown)
    return (
        f"<h3>{escape(folder.name)}: {escape(str(found.get('task', '')))}</h3>"
        f"{_scores(found)}" + (f'<div class="columns">{pictures}</div>' if pictures else "")
    )


def _scores(found: dict[str, Any]) -> str:
    """The task's own table, or the probe's scores beside those after fine-tuning."""
    if "table" in found:
        head, rows = found["table"]
        return table(head, rows)
    probe, after = (found["scores"][name] for name in ("probe", "finetuned"))
    rows = [[name, cell(probe[name]), cell(after[name])] for name in after]
    return table(["held out", "linear probe", "fine-tuned"], rows)
