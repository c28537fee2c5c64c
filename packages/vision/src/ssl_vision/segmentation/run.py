"""`finetune --task segmentation` and `evaluate --more segmentation`: masks from patch features."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssl_core.batch import Source
from ssl_core.data import Subset, decode_all
from ssl_core.distributed import rank
from ssl_core.domain import Domain
from ssl_core.engine.fit import Callback, FitResult
from ssl_core.engine.parallel import process_group
from ssl_core.errors import UserError
from ssl_core.files import write_json
from ssl_core.rng import key_of
from ssl_core.runs.finetuning import few_rows, finetune_settings, fit_repeated
from ssl_core.runs.folder import Run
from ssl_core.runs.model import Model, load_model
from ssl_core.runs.parts import split_data
from ssl_core.runs.summary import percent, versions
from ssl_core.tensors import write_tensors
from ssl_vision.reader import ImageReader
from ssl_vision.segmentation.network import (
    HeadKind,
    PairViews,
    Segmenter,
    confusion,
    measures,
)
from ssl_vision.segmentation.pairs import Labels, PairReader, paired_source


@dataclass
class _Work:
    """Everything a segmentation network is trained and asked with."""

    run: Run
    model: Model
    reader: PairReader
    train: Subset
    heldout: Subset
    views: PairViews
    device: torch.device

    def segmenter(self, head: HeadKind) -> Segmenter:
        """The run's encoder, frozen, under a head that starts from the run's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key_of("segmentation head", self.run.recipe.train.seed) % (1 << 63))
            classes = self.reader.labels.count
            return Segmenter(
                self.model.encoder, self.views, classes=classes, head=head, frozen=True
            )

    def fit(
        self,
        method: Segmenter,
        out: Path,
        *,
        steps: int,
        lr: float,
        batch_size: int,
        layer_decay: float | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> FitResult:
        """Trains what is not frozen; continues in `out` when interrupted."""
        settings = finetune_settings(self.run.recipe, steps=steps, batch_size=batch_size)
        return fit_repeated(
            method,
            self.train,
            self.reader,
            self.run.recipe,
            settings,
            lr=lr,
            layer_decay=layer_decay,
            out=out,
            device=self.device,
            callbacks=callbacks,
        )

    def scores(self, method: Segmenter) -> dict[str, float]:
        """Mean IoU and pixel accuracy on the held-out images."""
        batches = decode_all(self.heldout, self.reader, batch_size=32, device=self.device)
        return measures(confusion(method, batches))


def _work(
    run: Run,
    domain: Domain,
    *,
    path: str | None,
    device: torch.device,
    labelled: int | None,
    source: Source | None = None,
    size: int | None = None,
) -> _Work:
    data = run.recipe.data
    data = data.at(path)
    pairs = paired_source(domain, data) if source is None else source
    split = split_data(domain, data, pairs)
    if len(split.heldout) == 0:
        raise UserError("data: segmentation needs held-out images; set data.holdout, or splits")
    train = Subset(split.train, few_rows(len(split.train), labelled))
    model = load_model(run, domain, device=device)
    if not isinstance(model.reader, ImageReader):
        raise UserError("task: segmentation is for images")
    labels = Labels.of(train, max_pixels=model.reader.options.max_pixels)
    spec = {**model.reader.spec, **getattr(model.views, "spec", {})}
    side = int(spec.get("view_size", spec["size"])) if size is None else size
    views = PairViews(spec, side)
    return _Work(run, model, PairReader(model.reader, labels), train, split.heldout, views, device)


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
    """Trains a segmentation network in `out`: the head alone first, then every layer.

    The head trains for a quarter of `steps` on the frozen encoder, so that its first steps distort
    no good feature. Scores are those of held-out images, after each of the two.
    """
    if views is not None:
        raise UserError("views: segmentation makes its own views of image and mask; leave it out")
    with process_group(device):
        work = _work(
            run, domain, path=path, device=device, labelled=labelled_records, source=source
        )
        method = work.segmenter("fcn")
        settings: dict[str, Any] = {"lr": lr, "batch_size": batch_size}
        work.fit(method, out / "head", steps=max(1, steps // 4), **settings)
        before = work.scores(method)
        method.freeze(False)
        result = work.fit(
            method, out, steps=steps, layer_decay=layer_decay, callbacks=callbacks, **settings
        )
        after = work.scores(method)
    classes = work.reader.labels.count
    found = {
        "run": str(run.path),
        "out": str(out),
        "task": "segmentation",
        "scores": {"probe": before, "finetuned": after},
        "names": [str(n) for n in range(classes)],
        "labelled": len(work.train),
        "steps": result.steps,
        "wall_seconds": result.wall_seconds,
        "versions": versions("ssl-vision"),
    }
    if rank() == 0:
        facts = {"task": "segmentation", "classes": classes, "size": work.views.size}
        write_tensors(out / "model.safetensors", work.model.encoder.state_dict())
        write_tensors(out / "head.safetensors", method.head.state_dict(), facts)
        write_json(out / "summary.json", found)
    return found


def dense_linear(
    run: Run,
    domain: Domain,
    device: torch.device,
    *,
    path: str | None = None,
    steps: int = 300,
    lr: float = 1e-3,
    batch_size: int = 32,
    labelled: int | None = None,
    size: int | None = None,
    head: HeadKind = "linear",
) -> dict[str, Any]:
    """Mean IoU of a linear layer on frozen patch features: the dense linear protocol."""
    work = _work(run, domain, path=path, device=device, labelled=labelled, size=size)
    method = work.segmenter(head)
    with tempfile.TemporaryDirectory() as scratch:
        work.fit(method, Path(scratch), steps=steps, lr=lr, batch_size=batch_size)
    found: dict[str, Any] = work.scores(method)
    words = f"Dense linear segmentation: mean IoU {percent(found['mIoU'])}."
    return {**found, "classes": method.classes, "labelled": len(work.train), "words": words}
