"""From scan records to batches: one block a scan, drawn from its bricks where scans are large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Record, Source
from ssl_core.data.reading import (
    Options,
    load_facts,
    look_at_some,
    one_of,
    save_facts,
    whole_number,
)
from ssl_core.errors import CorruptSample, UserError
from ssl_core.files import cache_folder
from ssl_core.rng import generator
from ssl_medical.blocks import Block, Blocks
from ssl_medical.bricks import Bricks, cut, stored
from ssl_medical.files.open import read_volume
from ssl_medical.files.volume import MAX_VOXELS
from ssl_medical.prepare import SCALE, Preparation, window_of

_RAW_SIDE = 12
_BLOCK = 96


@dataclass(frozen=True)
class ReaderOptions(Options):
    """What `data.options` of a recipe may set.

    `spacing` in mm, one number or three (None keeps each file's). `window` is a pair of HU or one
    of `prepare.WINDOWS`; `scaling` "auto" uses it for CT and percentiles otherwise, where the
    manifest's column `modality` goes before the file's. `block` is the size of what is read of a
    scan, one number or three (None: the median scan, 96 at most). `slices` reads axial slices.
    `packed` is the folder of prepared bricks (None: in the user's cache).
    """

    spacing: float | Sequence[float] | None = None
    scaling: str = "auto"
    window: str | Sequence[float] = "wide"
    crop: bool = True
    block: int | Sequence[int] | None = None
    slices: bool = False
    four_d: str = "refuse"
    max_voxels: int = MAX_VOXELS
    packed: str | None = None
    measure: int = 32
    """Records looked at to find sizes, channels, mean and std."""

    def __post_init__(self) -> None:
        one_of("scaling", self.scaling, ("auto", "window", "percentiles"))
        one_of("four_d", self.four_d, ("refuse", "first", "channels"))
        for name in ("measure", "max_voxels"):
            whole_number(name, getattr(self, name), 1)
        _triple("spacing", self.spacing, float)
        _triple("block", self.block, int)
        window_of(self.window)

    @property
    def preparation(self) -> Preparation:
        """What is done to every scan."""
        spacing = _triple("spacing", self.spacing, float)
        return Preparation(spacing, self.scaling, window_of(self.window), self.crop)  # type: ignore[arg-type]


def _triple(name: str, value: Any, kind: type) -> tuple[Any, Any, Any] | None:
    """One positive number or three, as three."""
    if value is None:
        return None
    numbers = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    wrong = [n for n in numbers if not isinstance(n, (int, float)) or isinstance(n, bool) or n <= 0]
    if len(numbers) != 3 or wrong or (kind is int and any(n != int(n) for n in numbers)):
        raise UserError(f"data.options.{name}: {value!r} is no positive number, or three")
    return kind(numbers[0]), kind(numbers[1]), kind(numbers[2])


class VolumeReader:
    """`ssl_core.batch.Reader` for scans.

    A sample is a `Block`, a batch `Blocks` int16 `[B, C, *block]`. Of scans larger than the block,
    training draws another corner for every id (`draws`) and reads only that block from bricks on
    disk; `decode` is the block in the middle. Smaller scans are centred among zeros. `spec` holds
    `channels`, `block`, `axes` (2 for slices), `spacing` (median, mm), `shape` (median scan),
    `mean` and `std` per channel on the 0..1 scale.
    """

    def __init__(self, spec: Mapping[str, Any], options: ReaderOptions | None = None) -> None:
        self._spec = dict(spec)
        self.options = options or ReaderOptions()
        self.draws = bool(self._spec["draws"])

    @property
    def spec(self) -> Mapping[str, Any]:
        return self._spec

    def decode(self, record: Record) -> Block:
        """The middle block; raises `CorruptSample` with the reason."""
        return self._block(record, None)

    def draw(self, record: Record, key: int) -> Block:
        """The block whose corner `key` picks."""
        return self._block(record, key)

    def _block(self, record: Record, key: int | None) -> Block:
        bricks = self.bricks(record)
        if bricks.shape[0] != self._spec["channels"]:
            raise CorruptSample(
                f"{bricks.shape[0]} channels where others have {self._spec['channels']}"
            )
        return self.block_of(bricks, key)

    def block_of(self, bricks: Bricks, key: int | None) -> Block:
        """The block of a scan in bricks that `key` picks; the middle one without a key."""
        block, sides = self._spec["block"], bricks.shape[1:]
        room = [side - length for side, length in zip(sides, block, strict=True)]
        corner = [r // 2 for r in room]
        if key is not None:
            random = generator("block", key)
            corner = [int(random.integers(r + 1)) if r > 0 else r // 2 for r in room]
        data = torch.from_numpy(bricks.read(corner, block))
        return Block(data, (corner[0], corner[1], corner[2]), sides)

    def bricks(self, record: Record) -> Bricks:
        """The whole prepared scan; memory-mapped where blocks are drawn from files."""
        modality = str(record.meta.get("modality") or "")
        if not self.draws or not isinstance(record.payload, str):
            return cut(self.prepared(record))
        folder = Path(self.options.packed or cache_folder() / "volumes")
        settings = f"{self.options.preparation} {self.options.four_d} {modality}"
        try:
            return stored(folder, record.payload, settings, lambda: self.prepared(record))
        except OSError as error:
            raise CorruptSample(f"cannot be read: {error.strerror or error}") from error

    def prepared(self, record: Record) -> np.ndarray:
        """int16 `[C, X, Y, Z]` of the whole scan."""
        modality = str(record.meta.get("modality") or "")
        return prepared(record.payload, self.options, modality)

    def collate(self, samples: Sequence[Block]) -> Blocks:
        """`Blocks`; all have the block's size."""
        return Blocks.of(samples)

    def raw(self, data: Blocks) -> Tensor:
        """Normalised voxels averaged to at most 12 a side: `[B, R]`."""
        x = data.data.float() / SCALE
        sides = [min(_RAW_SIDE, side) for side in x.shape[2:]]
        mean = x.new_tensor(self._spec["mean"]).view(-1, 1, 1, 1)
        std = x.new_tensor(self._spec["std"]).view(-1, 1, 1, 1)
        return ((F.adaptive_avg_pool3d(x, sides) - mean) / std).flatten(1)

    def save(self, folder: Path) -> None:
        """Writes `reader.json`; it holds sizes and options, nothing of the files' headers."""
        save_facts(folder, self._spec, self.options)

    @classmethod
    def load(cls, folder: Path) -> VolumeReader:
        """The reader that `save` wrote."""
        spec, options = load_facts(folder, what="scan")
        return cls(spec, ReaderOptions(**options))

    @classmethod
    def fit(cls, source: Source, options: ReaderOptions | None = None) -> VolumeReader:
        """A reader for this source, from a keyed sample of its records.

        Unreadable records are passed over (the loader reports them). Raises `UserError` when none
        can be read.
        """
        chosen = options or ReaderOptions()
        found = look_at_some(source, chosen.measure, lambda r: _measured(r, chosen), what="scan")
        return cls(_spec_of(found, chosen), chosen)


@dataclass(frozen=True)
class _Measured:
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    total: np.ndarray
    square: np.ndarray


def prepared(payload: Any, options: ReaderOptions, modality: str = "") -> np.ndarray:
    """int16 `[C, X, Y, Z]` of a file or array with these options."""
    volume = read_volume(payload, max_voxels=options.max_voxels, four_d=options.four_d)  # type: ignore[arg-type]
    return options.preparation(volume, modality)


def _measured(record: Record, options: ReaderOptions) -> _Measured:
    volume = read_volume(record.payload, max_voxels=options.max_voxels, four_d=options.four_d)  # type: ignore[arg-type]
    voxels = options.preparation(volume, str(record.meta.get("modality") or ""))
    flat = voxels.reshape(voxels.shape[0], -1).astype(np.float64) / SCALE
    spacing = _triple("spacing", options.spacing, float) or volume.spacing
    return _Measured(voxels.shape, spacing, flat.mean(1), (flat**2).mean(1))


def _spec_of(found: Sequence[_Measured], options: ReaderOptions) -> dict[str, Any]:
    """Channels of most scans; sizes, spacing and moments over those."""
    counts = np.bincount([one.shape[0] for one in found])
    channels = int(counts.argmax())
    same = [one for one in found if one.shape[0] == channels]
    shape = np.median([one.shape[1:] for one in same], axis=0).astype(int).tolist()
    block = _triple("block", options.block, int) or tuple(min(_BLOCK, side) for side in shape)
    if options.slices:
        block = (block[0], block[1], 1)
    mean = np.mean([one.total for one in same], axis=0)
    std = np.sqrt(np.maximum(np.mean([one.square for one in same], axis=0) - mean**2, 1e-6))
    larger = any(any(np.greater(one.shape[1:], block)) for one in same)
    return {
        "channels": channels,
        "axes": 2 if options.slices else 3,
        "block": list(block),
        "shape": shape,
        "spacing": np.median([one.spacing for one in same], axis=0).round(4).tolist(),
        "mean": mean.round(6).tolist(),
        "std": std.round(6).tolist(),
        "draws": larger,
    }
