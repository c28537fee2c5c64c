"""Held-out records as points of a map: where they lie, what they look like, who is near them.

`gallery/points.json` holds, for up to 600 held-out records in one order: `keys`, `labels` (-1
where missing), `classes`, `clusters` (k-means of the trained features), `places` (name of a map
-> [x, y] of each record), `near` (the records nearest by the trained encoder, nearest first) and
what the domain tells (`words`) or draws. Pictures stand side by side in one PNG file, `columns` in
a row, each in a `cell` of [width, height].
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.domain import Domain
from ssl_core.evaluation.clusters import cluster
from ssl_core.evaluation.projection import has_umap, plane, umap_plane
from ssl_core.evaluation.rivals import Evaluator, Rival
from ssl_core.files import atomic_write, write_json
from ssl_core.report.sprites import COLUMNS, sprite
from ssl_core.rng import shuffled
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import Parts

POINTS = 600
NEAR = 6
_CLUSTERS = 10
"""Clusters of data without labels; with labels, as many as classes."""
_LONGEST = 280
"""Letters told of a record."""


def chosen(rival: Rival) -> np.ndarray:
    """Rows of the queries that the map shows: all, or an even sample, in order."""
    count = len(rival.queries)
    # Queries often stand in the order of their classes.
    return np.sort(shuffled(np.arange(min(count, POINTS)), count, "map"))


def places(rival: Rival, *, seed: int) -> dict[str, list[list[float]]]:
    """The chosen queries in the plane: by principal axes, and by UMAP where it is installed."""
    features = rival.queries[chosen(rival)]
    found = {"PCA": plane(features)}
    if has_umap() and len(features):
        found["UMAP"] = umap_plane(features, seed=seed)
    return {name: np.round(points.numpy(), 4).tolist() for name, points in found.items()}


def nearest(features: Tensor, count: int) -> list[list[int]]:
    """For each row of `[N, D]` the `count` other rows of largest cosine, nearest first."""
    unit = F.normalize(torch.nan_to_num(features.float()), dim=1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-2.0)
    found: list[list[int]] = similarity.topk(min(count, max(0, len(unit) - 1)), dim=1)[1].tolist()
    return found


def write_gallery(
    run: Run,
    domain: Domain,
    parts: Parts,
    evaluator: Evaluator,
    rival: Rival,
    *,
    untrained: Mapping[str, Sequence[Sequence[float]]],
) -> None:
    """Writes the gallery of a finished run; `untrained` is `places` of the untrained encoder."""
    shutil.rmtree(run.gallery_folder, ignore_errors=True)
    rows = chosen(rival)
    assert rival.query_index is not None
    if len(rows) < 2:
        return
    features, labels = rival.queries[rows], rival.query_labels[rows]
    classes = list(evaluator.train.classes or [])
    keys, pictures, words = _looks(domain, parts, evaluator, rival.query_index.numpy()[rows])
    if len(keys) != len(rows):  # files that vanished since they were embedded
        return
    trained = places(rival, seed=evaluator.seed)
    maps = {f"trained, {name}": found for name, found in trained.items()}
    maps |= {f"untrained, {name}": [*map(list, found)] for name, found in untrained.items()}
    groups = cluster(
        torch.nan_to_num(features), min(len(classes) or _CLUSTERS, len(rows)), starts=4
    )
    points: dict[str, Any] = {
        "keys": keys,
        "labels": labels.tolist(),
        "classes": [str(name) for name in classes],
        "clusters": groups.tolist(),
        "places": {name: found for name, found in maps.items() if len(found) == len(rows)},
        "near": nearest(features, NEAR),
        "words": [text[:_LONGEST] for text in words],
    }
    run.gallery_folder.mkdir(parents=True, exist_ok=True)
    if len(pictures) == len(rows):
        file, cell = sprite(pictures)
        atomic_write(run.sprite_file, file)
        points |= {"cell": cell, "columns": COLUMNS}
    write_json(run.gallery_folder / "points.json", points)


def _looks(
    domain: Domain, parts: Parts, evaluator: Evaluator, rows: np.ndarray
) -> tuple[list[str], list[np.ndarray], list[str]]:
    """Keys, pictures and words of the queries in these rows of their source."""
    keys: list[str] = []
    pictures: list[np.ndarray] = []
    words: list[str] = []
    for batch in evaluator.query_batches(rows):
        data = parts.views.plain(batch)
        keys += batch.keys
        pictures += domain.thumbnails(data, parts.spec)
        words += domain.words(data, parts.reader)
    return keys, pictures, words
