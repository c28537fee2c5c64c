"""Does pretraining help with few labels? Segmentation from the run's encoder and from scratch."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_core.batch import Source
from ssl_core.data import Subset
from ssl_core.domain import Domain
from ssl_core.errors import UserError
from ssl_core.runs.finetuning import few_rows
from ssl_core.runs.folder import Run
from ssl_core.runs.measures import scored
from ssl_core.runs.model import load_model
from ssl_core.runs.parts import build_parts, split_data
from ssl_medical.reader import VolumeReader
from ssl_medical.segmentation.labelled import LabelledReader, classes_of, has_masks, with_masks
from ssl_medical.segmentation.network import scores
from ssl_medical.segmentation.run import trained

RIVALS = ("pretrained", "scratch")


def few_label_dice(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    volumes: int | Sequence[int] = 2,
    seeds: int = 3,
    steps: int = 120,
    batch_size: int = 8,
    lr: float = 2e-3,
    tested: int = 16,
) -> dict[str, Any]:
    """Held-out Dice after training on `volumes` labelled scans, for each seed both ways.

    A seed chooses the scans, the head's start and the untrained encoder; everything else is equal.
    Seeds count from the run's own, so that runs of several seeds also differ in their scans.
    Several numbers of `volumes` give a table, one row each. Data without segmentations has nothing
    to measure, and the words say so; `seeds` 0 measures nothing.
    """
    counts = [volumes] if isinstance(volumes, int) else list(volumes)
    if not counts or any(not isinstance(n, int) or n < 1 for n in counts):
        raise UserError(f"few_label_dice.volumes: {volumes!r} is no number of scans, or several")
    if seeds == 0:
        return {}
    split = split_data(domain, run.recipe.data)
    if not has_masks(split.train) or not has_masks(split.heldout):
        return {"words": "Dice was not measured: no segmentations to train and test on."}
    heldout = with_masks(split.heldout)
    heldout = Subset(heldout, few_rows(len(heldout), tested))
    settings = {"steps": steps, "batch_size": batch_size, "lr": lr, "device": device}
    comparison = _Comparison(run, domain, with_masks(split.train), heldout, settings)
    rows = [comparison.row(count, seeds) for count in counts]
    found: dict[str, Any] = dict(rows[0]) if isinstance(volumes, int) else {"rows": rows}
    pretrained, scratch = (rows[0]["each"][rival] for rival in RIVALS)
    name = f"Dice with {_scans(counts[0])}"
    found["score"] = scored(name, pretrained, {"from scratch": scratch})
    return {**found, "seeds": seeds, "table": _table(rows), "words": _words(rows, seeds)}


@dataclass(frozen=True)
class _Comparison:
    """Scans to choose labelled ones from, scans to score, and how networks are trained."""

    run: Run
    domain: Domain
    train: Source
    heldout: Source
    settings: Mapping[str, Any]

    def row(self, volumes: int, seeds: int) -> dict[str, Any]:
        """Mean Dice of both with so many labelled scans, and each seed's."""
        first = self.run.recipe.train.seed
        each = {
            rival: [self.dice(rival, volumes, first + seed) for seed in range(seeds)]
            for rival in RIVALS
        }
        means = {rival: statistics.mean(values) for rival, values in each.items()}
        return {"volumes": volumes, **means, "each": each}

    def dice(self, rival: str, volumes: int, seed: int) -> float:
        """Of one network, on the held-out scans."""
        device = self.settings["device"]
        chosen = Subset(self.train, few_rows(len(self.train), volumes, seed=seed))
        model = load_model(self.run, self.domain, device=device)
        assert isinstance(model.reader, VolumeReader)
        reader = LabelledReader(model.reader)
        encoder = model.encoder if rival == "pretrained" else self._fresh(model.reader, seed)
        with tempfile.TemporaryDirectory() as scratch:
            method, _ = trained(
                encoder,
                chosen,
                reader,
                self.run.recipe,
                spec=model.views.spec,  # type: ignore[attr-defined]
                classes=classes_of(self.train, reader),
                out=Path(scratch),
                seed=seed,
                **self.settings,
            )
        policy: Any = method.view_policy
        found = scores(method, self.heldout, reader, policy, device, distance=False)
        return float(found["dice"] or 0.0)

    def _fresh(self, reader: VolumeReader, seed: int) -> nn.Module:
        """The run's encoder as it would start from this seed."""
        recipe = self.run.recipe
        seeded = recipe.train.model_copy(update={"seed": seed})
        again = recipe.model_copy(update={"train": seeded})
        backbone = build_parts(self.domain, again, reader).method.backbone
        return backbone.requires_grad_(True).to(self.settings["device"])


def _table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows: Dice by the number of labelled scans, mean and sample deviation over seeds."""
    cells = [
        [str(row["volumes"]), *(_spread(row["each"][rival]) for rival in RIVALS)] for row in rows
    ]
    return ["labelled scans", "Dice from this encoder", "Dice from scratch"], cells


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _scans(volumes: int) -> str:
    return f"{volumes} labelled scan{'s' * (volumes > 1)}"


def _words(rows: Sequence[Mapping[str, Any]], seeds: int) -> str:
    """Both means of every row."""
    found = "; ".join(
        f"with {_scans(row['volumes'])} "
        f"{row['pretrained']:.3f} from this encoder, {row['scratch']:.3f} from scratch"
        for row in rows
    )
    return f"Dice {found} (mean of {seeds} seed{'s' * (seeds > 1)})."
