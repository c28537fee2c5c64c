"""From scan records to batches: one block a scan, drawn from its bricks where scans are large."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.batch import Record, Source
from ssl_core.errors import CorruptSample, UserError
from ssl_core.rng import generator, shuffled
from ssl_core.runs.parts import cache_folder
from ssl_medical.blocks import Block, Blocks
from ssl_medical.bricks import Bricks, cut, stored
from ssl_medical.files.open import read_volume
from ssl_medical.files.volume import MAX_VOXELS
from ssl_medical.prepare import SCALE, Preparation, window_of

_RAW_SIDE = 12
_BLOCK = 96


@dataclass(frozen=True)
class ReaderOptions:
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
        for name, allowed in (
            ("scaling", ("auto", "window", "percentiles")),
            ("four_d", ("refuse", "first", "channels")),
        ):
            if getattr(self, name) not in allowed:
                value = getattr(self, name)
                raise UserError(f"data.options.{name}: {value!r}; choose {', '.join(allowed)}")
        for name in ("measure", "max_voxels"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"data.options.{name}: {value!r} is no positive integer")
        _triple("spacing", self.spacing, float)
        _triple("block", self.block, int)
        window_of(self.window)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ReaderOptions:
        """Checked options; unknown names raise `UserError`."""
        from ssl_core.registry import check_options

        check_options("data.options", cls, options, positional=0)
        return cls(**options)

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
        content = {"spec": self._spec, "options": asdict(self.options)}
        Path(folder, "reader.json").write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> VolumeReader:
        """The reader that `save` wrote."""
        path = Path(folder, "reader.json")
        if not path.is_file():
            raise UserError(f"{path} does not exist; {folder} is not the folder of a medical run")
        content = json.loads(path.read_text())
        return cls(content["spec"], ReaderOptions(**content["options"]))

    @classmethod
    def fit(cls, source: Source, options: ReaderOptions | None = None) -> VolumeReader:
        """A reader for this source, from a keyed sample of its records.

        Unreadable records are passed over (the loader reports them). Raises `UserError` when none
        can be read.
        """
        options = options or ReaderOptions()
        rows = shuffled(np.arange(min(len(source), options.measure)), len(source), "scan facts")
        found, reason = [], "the source is empty"
        for row in np.sort(rows):
            try:
                found.append(_measured(source[int(row)], options))
            except (CorruptSample, OSError) as error:
                reason = str(error)
        if not found:
            raise UserError(f"data: none of {len(rows)} records is a readable scan ({reason})")
        return cls(_spec_of(found, options), options)


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
