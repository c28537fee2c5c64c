"""What `inspect` finds in data before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ssl_core.batch import Source
from ssl_core.data import Failure, decode_all, labels_of
from ssl_core.domain import Domain
from ssl_core.evaluation.embed import sample_rows
from ssl_core.recipe import Data
from ssl_core.runs.parts import fitted_reader, split_data


def inspect_data(domain: Domain, data: Data, *, limit: int) -> dict[str, Any]:
    """Counts, classes, the reader's facts, and what of up to `limit` records is unreadable."""
    split = split_data(domain, data)
    reader = fitted_reader(domain, split.train, data)
    rows = sample_rows(len(split.source), limit, "inspect")
    failures: list[Failure] = []
    batches = decode_all(
        split.source, reader, rows, workers=data.workers, on_corrupt=failures.append
    )
    readable = sum(len(batch) for batch in batches)
    return {
        **split.facts(),
        "path": data.path,
        "classes": _class_counts(split.source),
        "spec": dict(reader.spec),
        "checked": readable + len(failures),
        "corrupt": len(failures),
        "unreadable": [{"key": f.key, "reason": f.reason} for f in failures],
    }


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
