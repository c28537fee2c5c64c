"""`finetune --task segmentation`: every layer, from a run's encoder, on labelled scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_core import recipe as recipes
from ssl_core.batch import Source
from ssl_core.data import Subset
from ssl_core.distributed import rank
from ssl_core.domain import Domain
from ssl_core.engine.fit import Callback, FitResult
from ssl_core.engine.parallel import process_group
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import atomic_write, write_json
from ssl_core.report.sprites import columns
from ssl_core.rng import key_of
from ssl_core.runs.finetuning import few_rows, finetune_settings, fit_repeated, unread
from ssl_core.runs.folder import Run
from ssl_core.runs.model import load_model
from ssl_core.runs.parts import split_data
from ssl_core.runs.picturing import ROWS
from ssl_core.runs.summary import versions
from ssl_core.tensors import write_tensors
from ssl_medical.picture import fullest, labelled
from ssl_medical.prepare import SCALE
from ssl_medical.reader import VolumeReader
from ssl_medical.segmentation.labelled import (
    LabelledReader,
    LabelledViews,
    classes_of,
    labelled_views,
    window_sides,
    with_masks,
)
from ssl_medical.segmentation.network import Segmenter, predict, scores
from ssl_medical.segmentation.start import start_head


def segment_run(
    run: Run,
    domain: Domain,
    *,
    path: str | None,
    out: Path,
    steps: int,
    lr: float,
    layer_decay: float | None,
    batch_size: int,
    views: str | None,
    device: torch.device,
    labelled_records: int | None = None,
    source: Source | None = None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Trains a segmentation network in `out`; Dice and HD95 on held-out scans.

    Records need a manifest's column `mask`. `labelled_records` trains on so many scans.
    """
    if views is not None:
        raise UserError("views: segmentation makes its own views of scan and labels; leave it out")
    data = run.recipe.data
    data = data.at(path)
    with process_group(device):
        split = split_data(domain, data, source)
        train, heldout = with_masks(split.train), with_masks(split.heldout)
        train = Subset(train, few_rows(len(train), labelled_records))
        model = load_model(run, domain, device=device)
        assert isinstance(model.reader, VolumeReader)
        reader = LabelledReader(model.reader)
        method, result = trained(
            model.encoder,
            train,
            reader,
            run.recipe,
            spec=model.views.spec,  # type: ignore[attr-defined]
            classes=classes_of(train, reader),
            out=out,
            steps=steps,
            lr=lr,
            layer_decay=layer_decay,
            batch_size=batch_size,
            device=device,
            callbacks=callbacks,
        )
        policy: Any = method.view_policy
        found = scores(method, heldout, reader, policy, device)
        if rank() == 0:
            write_pictures(method, heldout, reader, policy, device, Run(out).pictures_folder)
    outcome = {
        "run": str(run.path),
        "out": str(out),
        "task": "segmentation",
        "labelled": len(train),
        **found,
        "table": [
            ["class", "Dice", "HD95 mm"],
            [[str(n + 1), _shown(d), _shown(h)] for n, (d, h) in enumerate(
                zip(found["dice_classes"], found["hd95_classes"], strict=True)
            )] + [["mean", _shown(found["dice"]), _shown(found["hd95"])]],
        ],
        "steps": result.steps,
        "corrupt": unread(out),
        "wall_seconds": result.wall_seconds,
        "versions": versions("monai"),
    }  # fmt: skip
    if rank() == 0:
        write_tensors(out / "model.safetensors", method.encoder.state_dict())
        head = {k: v for k, v in method.state_dict().items() if not k.startswith("encoder.")}
        write_tensors(out / "head.safetensors", head)
        write_json(out / "summary.json", outcome)
    return outcome


@torch.no_grad()
def write_pictures(
    method: Segmenter,
    source: Source,
    reader: LabelledReader,
    views: LabelledViews,
    device: torch.device,
    folder: Path,
) -> None:
    """Up to `ROWS` scans in three planes: alone, as they are labelled, as the network labels them.

    The planes are those with most labels in truth.
    """
    drawn: dict[str, list[np.ndarray]] = {"scan": [], "labels": [], "told by the network": []}
    for row in range(len(source)):
        if len(drawn["scan"]) == ROWS:
            break
        try:
            scan, truth = reader.pair(source[row])
        except CorruptSample:  # counted with the scores
            continue
        told = predict(method.eval(), scan, views, device).cpu().numpy()
        at = fullest(truth[0])
        for labels, pictures in zip((0 * told, truth[0], told), drawn.values(), strict=True):
            pictures.append(labelled(scan[0] / SCALE, labels, at))
    folder.mkdir(exist_ok=True)
    for number, (caption, file) in enumerate(columns(drawn).items()):
        atomic_write(folder / f"{number:02d} {caption}.png", file)


def trained(
    encoder: nn.Module,
    train: Source,
    reader: LabelledReader,
    recipe: recipes.Recipe,
    *,
    spec: Any,
    classes: int,
    out: Path,
    steps: int,
    lr: float,
    batch_size: int,
    device: torch.device,
    layer_decay: float | None = None,
    seed: int | None = None,
    callbacks: Sequence[Callback] = (),
) -> tuple[Segmenter, FitResult]:
    """A `Segmenter` around `encoder`: its last layers first, then every layer for `steps`.

    The seed decides where new layers start.
    """
    seed = recipe.train.seed if seed is None else seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of("segmentation head", seed) % (1 << 63))
        views = labelled_views(spec, window_sides(spec))
        method = Segmenter(encoder, views, classes=classes)
    start_head(method, train, reader, device, seed=seed)
    settings = finetune_settings(recipe, steps=steps, batch_size=batch_size)
    settings = settings.model_copy(update={"seed": seed, "log_every": max(1, steps // 5)})
    result = fit_repeated(
        method,
        train,
        reader,
        recipe,
        settings,
        lr=lr,
        layer_decay=layer_decay,
        out=out,
        device=device,
        callbacks=callbacks,
    )
    return method, result


def _shown(value: float | None) -> str:
    return "n/a" if value is None or not np.isfinite(value) else f"{value:.3f}"
