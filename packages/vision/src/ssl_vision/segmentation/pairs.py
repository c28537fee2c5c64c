"""Images with their masks: where masks lie, how they are read, one sample of both.

A mask holds one class number a pixel (palette images by index, arrays as they are); 255 is
"not labelled". Masks that know nothing but 0 and 255 are taken as two classes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_core.batch import Decoded, Record, Source
from ssl_core.data import FileSource, Subset
from ssl_core.data.folder import list_folder
from ssl_core.data.heads import beside, evenly, head_of
from ssl_core.data.labels import from_paths
from ssl_core.domain import Domain
from ssl_core.errors import CorruptSample, UserError
from ssl_core.ops.pixels import Ragged
from ssl_core.recipe import Data
from ssl_core.runs.parts import open_data
from ssl_vision.decode import decode_image
from ssl_vision.formats import SUFFIXES, sniff
from ssl_vision.reader import ImageReader

VOID = 255
"""The class number of pixels without a label."""
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
MASK_FOLDERS = (
    *("masks", "mask", "annotations", "segmentationclass", "labels", "labelmaps"),
    *("segmentation", "segmentations", "gtfine", "gt"),
)
_LOOKED_AT = 64


def paired_source(domain: Domain, data: Data) -> Source:
    """The records of `data` that have a mask.

    Either a manifest names it in a column `mask`, or the folder holds images below `images/` and
    masks of the same name below `masks/` (or another of `IMAGE_FOLDERS` and `MASK_FOLDERS`), at
    the same place in the tree; `train/` beside `val/` become splits. Raises `UserError` when no
    record has a mask.
    """
    path = None if data.path is None else Path(data.path).expanduser()
    found = None if path is None or not path.is_dir() else _from_folders(path)
    source = open_data(domain, data) if found is None else found
    rows = [i for i in range(len(source)) if head_of(source, i).meta.get("mask")]
    if not rows:
        raise UserError(
            "data: no image has a mask; name it in a manifest's column 'mask', or put masks of "
            "the same names into masks/ beside images/"
        )
    return Subset(source, rows)


def _from_folders(root: Path) -> FileSource | None:
    """Images and masks in parallel folders; None where there are no such folders."""
    names = list_folder(os.fspath(root), SUFFIXES).names
    masks: dict[str, str] = {}
    images: list[tuple[str, str]] = []
    for name in names:
        parts = name.split("/")
        at = next(
            (
                i
                for i, part in enumerate(parts[:-1])
                if part.lower() in IMAGE_FOLDERS + MASK_FOLDERS
            ),
            None,
        )
        if at is None:
            continue
        stem = "/".join([*parts[:at], "*", *parts[at + 1 : -1], parts[-1].rsplit(".", 1)[0]])
        if parts[at].lower() in IMAGE_FOLDERS:
            images.append((name, stem))
        else:
            masks[stem] = name
    if not images or not masks:
        return None
    chosen = [name for name, _ in images]
    splits = from_paths(chosen)[2]
    meta: dict[str, Sequence[Any]] = {"mask": [masks.get(stem) for _, stem in images]}
    return FileSource(root, chosen, meta=meta if splits is None else {**meta, "split": splits})


def read_mask(source: Any, *, max_pixels: int) -> Tensor:
    """A mask uint8 `[H, W]`; raises `CorruptSample` for colours and for numbers above 255."""
    data = Path(source).read_bytes() if isinstance(source, (str, os.PathLike)) else source
    if isinstance(data, bytes) and sniff(data) not in ("NPY", "TIFF"):
        array = _by_index(data, max_pixels)
    else:
        image = decode_image(data, max_pixels=max_pixels)
        if image.shape[0] != 1:
            raise CorruptSample(f"mask has {image.shape[0]} channels; write class numbers")
        array = image[0].numpy()
    if array.size and (array.min() < 0 or array.max() > VOID or (array != np.rint(array)).any()):
        raise CorruptSample("mask holds values that are no class numbers from 0 to 255")
    return torch.from_numpy(array.astype(np.uint8))


def _by_index(data: bytes, max_pixels: int) -> np.ndarray:
    """Class numbers as stored: indices of a palette, grey values."""
    from PIL import Image

    Image.init()
    try:
        # The plugin itself, not `Image.open`, whose own size check warns through global state.
        image = Image.OPEN[sniff(data)][0](io.BytesIO(data), "")
        if image.width * image.height > max_pixels:
            raise CorruptSample(f"mask of {image.width} x {image.height} pixels exceeds the cap")
        if image.mode not in ("P", "L", "1", "I;16", "I"):
            raise CorruptSample(f"mask in mode {image.mode}; write class numbers, not colours")
        return np.array(image).astype(np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptSample(f"mask cannot be read: {error}") from error


@dataclass(frozen=True)
class Labels:
    """How stored numbers become classes: `table` uint8 `[256]`, 255 for "not labelled"."""

    count: int
    table: Tensor

    @classmethod
    def of(cls, source: Source, *, max_pixels: int) -> Labels:
        """The classes that up to 64 masks show; unreadable ones are passed over."""
        seen: set[int] = set()
        for row in evenly(len(source), _LOOKED_AT):
            record = source[row]
            try:
                seen |= set(read_mask(mask_path(record), max_pixels=max_pixels).unique().tolist())
            except (CorruptSample, OSError):
                continue
        table = torch.arange(256, dtype=torch.uint8)
        if seen <= {0, VOID}:
            seen, table[VOID] = {0, 1} if VOID in seen else {0}, 1
        highest = max(seen - {VOID}, default=0)
        if highest < 1:
            raise UserError("data: the masks hold no class beside 0; write class numbers into them")
        table[highest + 1 : VOID] = VOID  # a number nobody saw has no output
        return cls(highest + 1, table)


def mask_path(record: Record) -> str:
    """Where a record's mask lies."""
    return beside(record, str(record.meta["mask"]))


class PairReader:
    """An `ImageReader` whose samples `[C + 1, H, W]` carry the mask as their last channel."""

    def __init__(self, reader: ImageReader, labels: Labels) -> None:
        self.reader, self.labels = reader, labels

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.reader.spec

    def decode(self, record: Record) -> Tensor:
        """Image and mask at the image's stored size; `CorruptSample` where they differ."""
        if isinstance(record.payload, Decoded):
            raise UserError("data: packed images have no masks; give the original files")
        options = self.reader.options
        image = self.reader.decode(record)
        mask = read_mask(mask_path(record), max_pixels=options.max_pixels)
        height, width = mask.shape
        scale = min(1.0, options.max_side / min(height, width))
        sides = (max(1, round(height * scale)), max(1, round(width * scale)))
        if sides != tuple(image.shape[1:]):
            raise CorruptSample(
                f"the mask is {height} x {width} pixels, which is not the image's shape"
            )
        if scale < 1:
            rows, columns = (
                ((torch.arange(out) + 0.5) * side / out).long()
                for out, side in zip(sides, (height, width), strict=True)
            )
            mask = mask[rows[:, None], columns]
        labels = self.labels.table[mask.long()]
        both = torch.cat([image, labels[None].to(image.dtype)])
        return both.permute(1, 2, 0).contiguous().permute(2, 0, 1)

    def collate(self, samples: Sequence[Tensor]) -> Tensor | Ragged:
        """As the inner reader."""
        return self.reader.collate(samples)

    def raw(self, data: Tensor | Ragged) -> Tensor:
        """The image's raw features."""
        return self.reader.raw(split(data)[0])

    def save(self, folder: Path) -> None:
        """Writes the inner reader."""
        self.reader.save(folder)


def split(data: Tensor | Ragged) -> tuple[Tensor | Ragged, list[Tensor]]:
    """Images, and their masks int64 `[H, W]` one by one."""
    masks = [sample[-1].long() for sample in data]
    return (data[:, :-1] if isinstance(data, Tensor) else [x[:-1] for x in data]), masks
