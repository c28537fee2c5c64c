"""What `inspect` finds in data before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Source
from ssl_core.data import Failure, decode_all, head_of, labels_of
from ssl_core.domain import Domain
from ssl_core.evaluation.duplicates import near_duplicates
from ssl_core.evaluation.embed import sample_rows
from ssl_core.recipe import Data
from ssl_core.runs.parts import Split, fitted_reader, split_data


def inspect_data(domain: Domain, data: Data, *, limit: int) -> dict[str, Any]:
    """Counts, classes, the reader's facts, what of up to `limit` records is unreadable or double.

    Doubles are looked for where the domain says what counts as one (`Domain.double`); a pair with
    one record on each side of the hold-out makes any score too good.
    """
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
        "unreadable": [{"key": f.key, "reason": f.reason} for f in failures],
    }
    if domain.double is not None and raw:
        found["doubles"] = _doubles(split, readable, torch.cat(raw), domain.double)
    return found


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
