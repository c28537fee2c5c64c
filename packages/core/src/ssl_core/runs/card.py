"""The model card beside an export: what the encoder is, how it was made, how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ssl_core.files import atomic_write
from ssl_core.runs.folder import Run
from ssl_core.runs.model import Model
from ssl_core.runs.summary import SCORE_WORDS, percent, shown

_MARK = "Written by `ssl-{domain} export`."
_LIBRARIES = {"timm": "timm", "transformers": "transformers", "onnx": "onnx"}


def write_card(run: Run, model: Model, path: Path, *, format: str) -> Path:
    """Writes `README.md` with the front matter that model hubs read; returns its path.

    A README beside an exported file that is not one of ours stays; the card is then
    `<name>.README.md`.
    """
    folder = path if path.is_dir() else path.parent
    card = folder / "README.md"
    mark = _MARK.format(domain=model.domain.name)
    if card.is_file() and mark not in card.read_text(encoding="utf-8", errors="replace"):
        card = folder / f"{path.stem if path.is_file() else run.path.name}.README.md"
    atomic_write(card, _text(run, model, path, format, mark))
    return card


def _text(run: Run, model: Model, path: Path, format: str, mark: str) -> str:
    recipe, domain = run.recipe, model.domain
    name = run.path.resolve().name
    front: dict[str, Any] = {
        "library_name": _LIBRARIES.get(format, "ssl"),
        "tags": ["self-supervised-learning", domain.name, recipe.method.name, recipe.encoder.name],
    }
    if domain.card:
        front |= domain.card
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{head}---",
        (
            f"# {name}\n\n{mark} An encoder trained without labels: method `{recipe.method.name}`, "
            f"encoder `{recipe.encoder.name}`, {model.dim} features."
        ),
        "## Use\n\n" + _use(model, path, format),
        "## Input\n\n" + _facts({**model.reader.spec, **getattr(model.views, "spec", {})}),
        "## Training\n\n" + _training(run),
        "## Results\n\n" + _results(run),
        (
            "## Limits\n\nThe figures hold for the data named above. An encoder carries over what "
            "its data shows and lacks; measure it on yours (`evaluate`) before relying on it."
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _use(model: Model, path: Path, format: str) -> str:
    found = model.domain.loading(format, path)
    if format == "onnx":
        found = (
            "import onnxruntime\n"
            'session = onnxruntime.InferenceSession("model.onnx")\n'
            '(pooled,) = session.run(None, {"input": inputs})'
        )
    if found is None:
        found = f'from safetensors.torch import load_file\nweights = load_file("{path.name}")'
    return (
        f"```python\n{found}\n```\n\n"
        "`*.example.safetensors`, where there is one, holds an `input` and the `pooled` features "
        "it gives; the export was loaded again and agreed with it."
    )


def _facts(spec: dict[str, Any]) -> str:
    lines = [f"- {key}: {_short(value)}" for key, value in spec.items()]
    return "What the reader measured, and views changed:\n\n" + "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        text = ", ".join(_short(item) for item in value[:16])
        return f"[{text}{', ...' if len(value) > 16 else ''}]"
    return str(value)[:200]


def _training(run: Run) -> str:
    recipe = run.recipe
    facts = run.facts["data"] if run.facts_file.is_file() else {}
    records = facts.get("train")
    lines = [
        f"- records: {records if records is not None else 'unknown'}",
        f"- steps: {recipe.train.steps} of {recipe.train.batch_size}, seed {recipe.train.seed}",
        (
            f"- optimiser: {recipe.optimizer.name}, rate {recipe.optimizer.lr:g}, weight decay "
            f"{recipe.optimizer.weight_decay:g}"
        ),
        f"- views: {recipe.views.name}",
    ]
    if run.finished:
        versions = run.summary.get("versions", {})
        lines.append("- versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()))
    return "\n".join(lines)


def _results(run: Run) -> str:
    if not run.finished:
        return "Not evaluated."
    summary = run.summary
    score = summary["score"]
    name = score["name"]
    rows = [f"| {key} | {shown(name, score[key])} |" for key in ("raw", "untrained", "trained")]
    chance = f" Chance is {percent(summary['chance'])}." if "chance" in summary else ""
    table = "\n".join([f"| representation | {SCORE_WORDS[name]} |", "|---|---|", *rows])
    return f"{table}\n\n{summary['verdict']}{chance}"
