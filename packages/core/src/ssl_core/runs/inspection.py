"""What `inspect` finds in data before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Reader, Source
from ssl_core.data import Failure, decode_all, head_of, labels_of
from ssl_core.domain import Domain
from ssl_core.evaluation.duplicates import near_duplicates
from ssl_core.evaluation.embed import sample_rows
from ssl_core.recipe import Recipe
from ssl_core.runs.parts import Split, build_parts, fitted_reader, split_data
from ssl_core.runs.picturing import show_views
from ssl_core.runs.pretraining import make_evaluator


def inspect_data(domain: Domain, recipe: Recipe, *, limit: int, picture: Path) -> dict[str, Any]:
    """Counts, classes, the reader's facts, what of up to `limit` records is unreadable or double.

    What the recipe's views make of a few records is drawn to `picture`, or told. Doubles are looked
    for where the domain says what counts as one (`Domain.double`); a pair with one record on each
    side of the hold-out makes any score too good.
    """
    data = recipe.data
    split = split_data(domain, data)
    reader = fitted_reader(domain, split.train, data)
    rows = sample_rows(len(split.source), limit, "inspect")
    failures: list[Failure] = []
    batches = decode_all(
        split.source, reader, rows, workers=data.workers, on_corrupt=failures.append
    )
    readable: list[int] = []
    raw: list[Tensor] = []
    for batch in batches:
        readable += batch.index.tolist()
        if domain.double is not None:
            raw.append(reader.raw(batch.data).float())
    found = {
        **split.facts(),
        "path": data.path,
        "classes": _class_counts(split.source),
        "spec": dict(reader.spec),
        "facts": dict(domain.facts(split.source, [int(row) for row in rows])),
        "checked": len(readable) + len(failures),
        "corrupt": len(failures),
        "views": _views(domain, recipe, split, reader, picture),
        "unreadable": [{"key": f.key, "reason": f.reason} for f in failures],
    }
    if domain.double is not None and raw:
        found["doubles"] = _doubles(split, readable, torch.cat(raw), domain.double)
    return found


def _views(
    domain: Domain, recipe: Recipe, split: Split, reader: Reader, picture: Path
) -> dict[str, Any]:
    """The name of the views, and what `show_views` shows of them."""
    parts = build_parts(domain, recipe, reader, training=False)
    evaluator = make_evaluator(recipe, split, parts, torch.device("cpu"))
    shown = show_views(domain, parts, evaluator, picture, seed=recipe.train.seed)
    return {"name": recipe.views.name, **shown}


def _doubles(split: Split, rows: list[int], raw: Tensor, threshold: float) -> list[dict[str, Any]]:
    """Nearly equal pairs, with whether the hold-out parts them and whether their labels differ."""
    held = set(np.asarray(split.heldout.indices).tolist())
    out = []
    for i, j, cosine in near_duplicates(raw, threshold=threshold):
        a, b = (head_of(split.source, rows[at]) for at in (i, j))
        out.append(
            {
                "keys": [a.key, b.key],
                "similarity": cosine,
                "across": (rows[i] in held) != (rows[j] in held),
                "labels_differ": a.label != b.label,
            }
        )
    return out


def _class_counts(source: Source) -> dict[str, int] | None:
    """Records of each class, most first."""
    if source.classes is None:
        return None
    names = source.classes
    counts = Counter(labels_of(source).tolist())
    return {
        "(no label)" if label < 0 else str(names[label]): count
        for label, count in counts.most_common()
    }
