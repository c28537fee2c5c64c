"""Does pretraining help with few labels? Segmentation from the run's encoder and from scratch."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from ssl_core.data import Subset
from ssl_core.domain import Domain
from ssl_core.runs.finetuning import few_rows
from ssl_core.runs.folder import Run
from ssl_core.runs.model import load_model
from ssl_core.runs.parts import build_parts, split_data
from ssl_medical.reader import VolumeReader
from ssl_medical.segmentation.labelled import LabelledReader, classes_of, has_masks, with_masks
from ssl_medical.segmentation.network import scores
from ssl_medical.segmentation.run import trained


def few_label_dice(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    volumes: int = 2,
    seeds: int = 3,
    steps: int = 120,
    batch_size: int = 8,
    lr: float = 2e-3,
    tested: int = 16,
) -> dict[str, Any]:
    """Held-out Dice after training on `volumes` labelled scans, for each seed both ways.

    A seed chooses the scans, the head's start and the untrained encoder; everything else is equal.
    Data without segmentations has nothing to measure, and the words say so; `seeds` 0 measures
    nothing.
    """
    if seeds == 0:
        return {}
    recipe = run.recipe
    split = split_data(domain, recipe.data)
    if not has_masks(split.train) or not has_masks(split.heldout):
        return {"words": "Dice was not measured: no segmentations to train and test on."}
    train, heldout = with_masks(split.train), with_masks(split.heldout)
    heldout = Subset(heldout, few_rows(len(heldout), tested))
    rivals: dict[str, list[float]] = {"pretrained": [], "scratch": []}
    for seed in range(seeds):
        chosen = Subset(train, few_rows(len(train), volumes, seed=seed))
        for rival, values in rivals.items():
            model = load_model(run, domain, device=device)
            assert isinstance(model.reader, VolumeReader)
            reader = LabelledReader(model.reader)
            encoder = model.encoder
            if rival == "scratch":
                fresh = recipe.train.model_copy(update={"seed": seed})
                again = recipe.model_copy(update={"train": fresh})
                encoder = build_parts(domain, again, model.reader).method.backbone
                encoder.requires_grad_(True).to(device)
            with tempfile.TemporaryDirectory() as scratch:
                method, _ = trained(
                    encoder,
                    chosen,
                    reader,
                    recipe,
                    spec=model.views.spec,  # type: ignore[attr-defined]
                    classes=classes_of(train, reader),
                    out=Path(scratch),
                    steps=steps,
                    lr=lr,
                    batch_size=batch_size,
                    device=device,
                    seed=seed,
                )
            policy: Any = method.view_policy
            values.append(scores(method, heldout, reader, policy, device, distance=False)["dice"])
    means = {rival: statistics.mean(values) for rival, values in rivals.items()}
    words = (
        f"Segmentation with {volumes} labelled scans: Dice {means['pretrained']:.3f} from this "
        f"encoder, {means['scratch']:.3f} from scratch (mean of {seeds} seeds)."
    )
    return {"volumes": volumes, "seeds": seeds, **means, "each": rivals, "words": words}
