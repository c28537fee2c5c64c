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
from ssl_core.errors import UserError
from ssl_core.files import write_json
from ssl_core.rng import key_of
from ssl_core.runs.finetuning import few_rows, finetune_settings, fit_repeated
from ssl_core.runs.folder import Run
from ssl_core.runs.model import load_model
from ssl_core.runs.parts import split_data
from ssl_core.runs.summary import versions
from ssl_core.tensors import write_tensors
from ssl_medical.reader import VolumeReader
from ssl_medical.segmentation.labelled import (
    LabelledReader,
    classes_of,
    labelled_views,
    window_sides,
    with_masks,
)
from ssl_medical.segmentation.network import Segmenter, scores


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
    outcome = {
        "run": str(run.path),
        "out": str(out),
        "labelled": len(train),
        **found,
        "table": [
            ["class", "Dice", "HD95 mm"],
            [[str(n + 1), _shown(d), _shown(h)] for n, (d, h) in enumerate(
                zip(found["dice_classes"], found["hd95_classes"], strict=True)
            )] + [["mean", _shown(found["dice"]), _shown(found["hd95"])]],
        ],
        "steps": result.steps,
        "wall_seconds": result.wall_seconds,
        "versions": versions("monai"),
    }  # fmt: skip
    if rank() == 0:
        write_tensors(out / "model.safetensors", method.encoder.state_dict())
        head = {k: v for k, v in method.state_dict().items() if not k.startswith("encoder.")}
        write_tensors(out / "head.safetensors", head)
        write_json(out / "summary.json", outcome)
    return outcome


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
    """A `Segmenter` around `encoder`, trained for `steps`; its head starts from the seed."""
    seed = recipe.train.seed if seed is None else seed
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of("segmentation head", seed) % (1 << 63))
        views = labelled_views(spec, window_sides(spec))
        method = Segmenter(encoder, views, classes=classes)
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
