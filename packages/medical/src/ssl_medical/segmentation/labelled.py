"""Scans with their segmentations: one block of both, one view of both."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Batch, Record, Source
from ssl_core.data import Subset
from ssl_core.data.heads import beside, head_of
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import cache_folder
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_medical.blocks import Block, Blocks
from ssl_medical.bricks import Bricks, cut, stored
from ssl_medical.files.open import read_volume
from ssl_medical.prepare import SCALE, foreground
from ssl_medical.reader import VolumeReader
from ssl_medical.views.intensity import Intensity
from ssl_medical.views.policies import Frame, frame
from ssl_medical.views.space import RandomPlacement, sampled


def with_masks(source: Source) -> Subset:
    """The records whose manifest names a segmentation in its column `mask`."""
    rows = _masked(source)
    if not rows:
        raise UserError("data: no record has a segmentation; name it in a manifest's column 'mask'")
    return Subset(source, rows)


def has_masks(source: Source) -> bool:
    """Whether any record names a segmentation."""
    return bool(_masked(source))


def _masked(source: Source) -> list[int]:
    return [i for i in range(len(source)) if head_of(source, i).meta.get("mask")]


class LabelledReader:
    """A `VolumeReader` whose blocks hold the segmentation as one more channel."""

    def __init__(self, reader: VolumeReader) -> None:
        self.reader = reader
        self.draws = reader.draws

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.reader.spec

    def decode(self, record: Record) -> Block:
        """The middle block."""
        return self._block(record, None)

    def draw(self, record: Record, key: int) -> Block:
        """The block that `key` picks."""
        return self._block(record, key)

    def _block(self, record: Record, key: int | None) -> Block:
        return self.reader.block_of(self._bricks(record), key)

    def _bricks(self, record: Record) -> Bricks:
        """Scan and labels; memory-mapped where blocks are drawn from files."""

        def make() -> np.ndarray:
            return np.concatenate(self.pair(record))

        if not self.draws or not isinstance(record.payload, str):
            return cut(make())
        options, mask = self.reader.options, _mask_path(record)
        folder = Path(options.packed or cache_folder() / "volumes")
        try:
            age = os.stat(mask).st_mtime_ns
        except OSError as error:
            raise CorruptSample(_of_mask(record, error.strerror or error)) from error
        try:
            modality = record.meta.get("modality")
            settings = f"{options.preparation} {options.four_d} {modality} {mask} {age}"
            return stored(folder, record.payload, settings, make)
        except OSError as error:
            raise CorruptSample(f"cannot be read: {error.strerror or error}") from error

    def pair(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """int16 `[C, X, Y, Z]` and its labels `[1, X, Y, Z]` on the same voxels."""
        options = self.reader.options
        limits = {"max_voxels": options.max_voxels, "four_d": options.four_d}
        volume = read_volume(record.payload, **limits)  # type: ignore[arg-type]
        try:
            mask = read_volume(_mask_path(record), max_voxels=options.max_voxels, sparse=True)
        except CorruptSample as error:
            raise CorruptSample(_of_mask(record, error)) from error
        preparation = options.preparation
        data, _ = preparation.aligned(volume)
        labels, _ = preparation.aligned(mask, nearest=True)
        if data.shape[1:] != labels.shape[1:] or labels.shape[0] != 1:
            raise CorruptSample(f"scan {data.shape[1:]} and segmentation {labels.shape} differ")
        modality = str(record.meta.get("modality") or volume.modality)
        unit = preparation.scaled(data, modality)
        if preparation.crop:
            box = (slice(None), *foreground(unit))
            unit, labels = unit[box], labels[box]
        return (unit * SCALE).round().astype(np.int16), labels.round().astype(np.int16)

    def collate(self, samples: Sequence[Block]) -> Blocks:
        """`Blocks` with the labels as the last channel."""
        return Blocks.of(samples)

    def raw(self, data: Blocks) -> Tensor:
        """The scan's raw features."""
        return self.reader.raw(Blocks(data.data[:, :-1], data.corner, data.shape))

    def save(self, folder: Any) -> None:
        """Writes the inner reader."""
        self.reader.save(folder)


def _mask_path(record: Record) -> str:
    """The segmentation's path."""
    return beside(record, str(record.meta["mask"]))


def _of_mask(record: Record, reason: object) -> str:
    return f"segmentation {record.meta['mask']}: {reason}"


def classes_of(source: Source, reader: LabelledReader, *, look: int = 8) -> int:
    """One more than the largest label of up to `look` scans that can be read."""
    highest, seen = 0, 0
    for row in range(len(source)):
        if seen == look:
            break
        with suppress(CorruptSample):
            highest = max(highest, int(reader.pair(source[row])[1].max()))
            seen += 1
    if highest < 1:
        raise UserError("data: the segmentations hold no label above 0")
    return highest + 1


@dataclass(frozen=True)
class LabelledViews:
    """One gentle view of scan and labels at the scan's own resolution; labels in `params`."""

    frame: Frame
    place: RandomPlacement
    intensity: Intensity

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.frame.spec

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        rng = rng.fold("view", 0)
        scan, labels = split(batch.data)
        block, sides = self.frame.block, self.frame.sides
        place = self.place.sample(rng, block, sides, self.frame.spec["spacing"])
        x = self.intensity(self.frame.seen(scan, place), rng)
        seen = sampled(labels if len(sides) == 3 else labels[..., 0], place, sides, nearest=True)
        return [View(self.frame.normalised(x), rng, params={"labels": seen[:, 0].long()})]

    def plain(self, batch: Batch) -> Tensor:
        """The whole block without labels."""
        return self.frame.plain(Batch(split(batch.data)[0], batch.ids, batch.index))


def split(data: Blocks) -> tuple[Blocks, Tensor]:
    """The scans, and their labels as float32 `[B, 1, *block]`."""
    return Blocks(data.data[:, :-1], data.corner, data.shape), data.data[:, -1:].float()


def labelled_views(spec: Mapping[str, Any], sides: Sequence[int]) -> LabelledViews:
    """Views of `sides` voxels, no larger than the block, zoomed by 10 % at most."""
    block = list(spec["block"][: int(spec["axes"])])
    own = frame(spec, [min(int(s), int(b)) for s, b in zip(sides, block, strict=True)])
    share = max(s / b for s, b in zip(own.sides, block, strict=True))
    place = RandomPlacement((min(1.0, 0.9 * share), min(1.0, 1.1 * share)), angle=10.0)
    return LabelledViews(own, place, Intensity(noise=0.3, blur=0.1, bias=0.3, strength=0.7))


def window_sides(spec: Mapping[str, Any]) -> list[int]:
    """Sides of the windows a network is slid over a scan with."""
    return [int(s) for s in spec.get("view_sides", spec["block"][: int(spec["axes"])])]


def as_input(own: Frame, scan: np.ndarray, device: torch.device) -> Tensor:
    """A prepared scan int16 `[C, X, Y, Z]` as a network's input `[1, C, X, Y, Z]`."""
    x = torch.from_numpy(scan).to(device).float()[None] / SCALE
    mean, std = (x.new_tensor(own.spec[name]).view(1, -1, 1, 1, 1) for name in ("mean", "std"))
    return (x - mean) / std
