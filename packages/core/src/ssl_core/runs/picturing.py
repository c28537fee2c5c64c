"""Pictures of what a method sees: its views and, where it hides parts, these and its guesses.

The domain draws (`Domain.draw`), the method shows (`Method.shown`); this joins them.
"""

from __future__ import annotations

import shutil

import numpy as np
import torch

from ssl_core.batch import Batch
from ssl_core.domain import Domain
from ssl_core.files import atomic_write
from ssl_core.report.pictures import png, stacked
from ssl_core.rng import Rng
from ssl_core.runs.folder import Run
from ssl_core.runs.parts import Parts

ROWS = 4
"""Records in every picture."""


@torch.no_grad()
def write_pictures(run: Run, domain: Domain, parts: Parts, batch: Batch, *, seed: int) -> None:
    """Writes `pictures/<number> <caption>.png` of up to `ROWS` records; none if nothing is drawn.

    The method runs in evaluation mode on the views it would see in a step, and is put back.
    """
    shutil.rmtree(run.pictures_folder, ignore_errors=True)
    for number, (caption, drawn) in enumerate(sketch(domain, parts, batch, seed=seed).items()):
        run.pictures_folder.mkdir(exist_ok=True)
        name = f"{number:02d} {caption}.png"
        atomic_write(run.pictures_folder / name, png(stacked(drawn)))


@torch.no_grad()
def sketch(domain: Domain, parts: Parts, batch: Batch, *, seed: int) -> dict[str, list[np.ndarray]]:
    """What `write_pictures` writes, caption -> one uint8 picture a record."""
    method = parts.method
    training = method.training
    method.eval()
    try:
        views = method.views(batch, Rng.at(seed, 0, batch.ids))
        shown = {f"view {i + 1}": view.data for i, view in enumerate(views)}
        shown.update(method.shown(views))
    finally:
        method.train(training)
    drawn = {caption: domain.draw(data, parts.spec) for caption, data in shown.items()}
    return {caption: rows[:ROWS] for caption, rows in drawn.items() if rows}
