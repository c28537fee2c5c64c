"""Pictures of what a method sees: its views and, where it hides parts, these and its guesses.

The domain draws (`Domain.draw`) or tells (`Domain.words`), the method shows (`Method.shown`);
this joins them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_core.batch import Batch
from ssl_core.domain import Domain
from ssl_core.evaluation.rivals import Evaluator
from ssl_core.files import atomic_write, write_json
from ssl_core.report.pictures import png
from ssl_core.report.sprites import columns
from ssl_core.rng import Rng
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import Parts

ROWS = 4
"""Records in every picture."""
_GAP = 6
_SMALLEST = 480
"""Height up to which the picture of small views is enlarged, by whole factors."""


def write_pictures(run: Run, domain: Domain, parts: Parts, batch: Batch, *, seed: int) -> None:
    """Writes `pictures/<number> <caption>.png` (or .json, for words) of up to `ROWS` records.

    The method runs in evaluation mode on the views it would see in a step, and is put back.
    """
    shutil.rmtree(run.pictures_folder, ignore_errors=True)
    shown = sketch(domain, parts, batch, seed=seed)
    files = columns({caption: drawn for caption, (drawn, _) in shown.items() if drawn})
    for number, (caption, (_, told)) in enumerate(shown.items()):
        run.pictures_folder.mkdir(exist_ok=True)
        name = f"{number:02d} {caption}"
        if caption in files:
            atomic_write(run.pictures_folder / f"{name}.png", files[caption])
        else:
            write_json(run.pictures_folder / f"{name}.json", told)


@torch.no_grad()
def sketch(
    domain: Domain, parts: Parts, batch: Batch, *, seed: int
) -> dict[str, tuple[list[np.ndarray], list[str]]]:
    """Caption -> one uint8 picture a record, or one text a record; nothing for what has neither."""
    method = parts.method
    training = method.training
    method.eval()
    try:
        views = method.views(batch, Rng.at(seed, 0, batch.ids))
        shown = {f"view {i + 1}": view.data for i, view in enumerate(views)}
        shown.update(method.shown(views))
    finally:
        method.train(training)
    found = {}
    for caption, data in shown.items():
        drawn = domain.draw(data, parts.spec)[:ROWS]
        told = [] if drawn else domain.words(data, parts.reader)[:ROWS]
        if drawn or told:
            found[caption] = (drawn, told)
    return found


def show_views(
    domain: Domain, parts: Parts, evaluator: Evaluator, picture: Path, *, seed: int
) -> dict[str, Any]:
    """Views of a few held-out records, drawn side by side into one PNG file or told in words.

    Returns `picture` (None where nothing can be drawn), the `captions` of its columns and `words`
    (caption -> one text a record).
    """
    batch = evaluator.few(ROWS)
    shown = {} if batch is None else sketch(domain, parts, batch, seed=seed)
    drawn = {caption: pictures for caption, (pictures, _) in shown.items() if pictures}
    if drawn:
        whole = _grid([*drawn.values()])
        larger = max(1, _SMALLEST // whole.shape[0])  # small views are hard to see as they are
        atomic_write(picture, png(whole.repeat(larger, axis=0).repeat(larger, axis=1)))
    return {
        "picture": str(picture) if drawn else None,
        "captions": list(drawn),
        "words": {caption: told for caption, (_, told) in shown.items() if told},
    }


def _grid(columns: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Columns of pictures `[H, W]` or `[H, W, 3]` on white, those of one record in one row."""
    colour = [
        [p if p.ndim == 3 else p[..., None].repeat(3, 2) for p in column] for column in columns
    ]
    heights = [max(p.shape[0] for p in row) for row in zip(*colour, strict=False)]
    made = []
    for column in colour:
        width = max(p.shape[1] for p in column)
        cells = [
            np.pad(
                p,
                ((0, height + _GAP - p.shape[0]), (0, width + _GAP - p.shape[1]), (0, 0)),
                constant_values=255,
            )
            for p, height in zip(column, heights, strict=False)
        ]
        made.append(np.concatenate(cells))
    whole: np.ndarray = np.concatenate(made, axis=1)[:-_GAP, :-_GAP]
    return whole
