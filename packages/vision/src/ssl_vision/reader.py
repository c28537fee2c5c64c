"""From image records to batches: one channel count, one value range, bounded resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
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
from ssl_core.errors import CorruptSample
from ssl_core.ops.pixels import Ragged, resize
from ssl_vision.decode import MAX_BYTES, MAX_PIXELS, decode_image
from ssl_vision.measure import measure

_RAW_SIDE = 32
_LUMA = (0.2989, 0.587, 0.114)
_DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}
_FULL = {torch.uint8: 255.0, torch.uint16: 65535.0}


@dataclass(frozen=True)
class ReaderOptions(Options):
    """What `data.options` of a recipe may set.

    `max_side` bounds the stored resolution: a longer *shorter side* is scaled down to it, with
    antialias. `size` is the side of the square views (None: from the data). `alpha` is "drop" or
    "keep". `normalize` is "measured" (mean and std of the data) or "imagenet". `captions` names
    the column or JSON field of captions, of which `caption_length` tokens are kept. Their
    `tokenizer` is a tokenizer.json; None trains one of `vocab_size` pieces on them.
    """

    max_side: int = 512
    size: int | None = None
    alpha: Literal["drop", "keep"] = "drop"
    normalize: Literal["measured", "imagenet"] = "measured"
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    measure: int = 256
    """Records looked at to find channels, sizes, mean and std."""
    captions: str | None = None
    caption_length: int = 77
    vocab_size: int = 8000
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_side", "max_pixels", "max_bytes", "measure"):
            whole_number(name, getattr(self, name), 1)
        whole_number("caption_length", self.caption_length, 4)
        whole_number("vocab_size", self.vocab_size, 300)
        if self.size is not None:
            whole_number("size", self.size, 8)
        one_of("alpha", self.alpha, ("drop", "keep"))
        one_of("normalize", self.normalize, ("measured", "imagenet"))


class ImageReader:
    """`ssl_core.batch.Reader` for images.

    `spec` holds `channels`, `size` (side of the square views), `height` and `width` (median
    stored sizes), `dtype` ("uint8", "uint16", "float32"), `range` (the values that mean 0 and 1)
    and `mean`, `std` per channel on that 0..1 scale. Samples are `[C, H, W]` in `dtype`; a batch
    is `[B, C, H, W]` when all sizes agree, else a `Ragged` list of them.
    """

    def __init__(self, spec: Mapping[str, Any], options: ReaderOptions | None = None) -> None:
        self._spec = dict(spec)
        self.options = options or ReaderOptions()
        self._dtype = _DTYPES[self._spec["dtype"]]

    @property
    def spec(self) -> Mapping[str, Any]:
        return self._spec

    def decode(self, record: Record) -> Tensor:
        """One image `[C, H, W]`; raises `CorruptSample` with the reason."""
        image = stored(record.payload, self.options)
        return as_dtype(with_channels(image, self._spec["channels"]), self._dtype)

    def collate(self, samples: Sequence[Tensor]) -> Tensor | Ragged:
        """`[B, C, H, W]` (channels last in memory) or, when sizes differ, a list."""
        if len({sample.shape for sample in samples}) == 1:
            return torch.stack([sample.permute(1, 2, 0) for sample in samples]).permute(0, 3, 1, 2)
        return list(samples)

    def raw(self, data: Tensor | Ragged) -> Tensor:
        """Normalised pixels of the centre square, at most 32 x 32: `[B, C * side * side]`."""
        side = min(_RAW_SIDE, self._spec["size"])
        pixels = resize(data, side, self._spec)  # [B, C, side, side]
        mean = pixels.new_tensor(self._spec["mean"])[:, None, None]
        std = pixels.new_tensor(self._spec["std"])[:, None, None]
        return ((pixels - mean) / std).flatten(1)

    def save(self, folder: Path) -> None:
        """Writes `reader.json`."""
        save_facts(folder, self._spec, self.options)

    @classmethod
    def load(cls, folder: Path) -> ImageReader:
        """The reader that `save` wrote."""
        spec, options = load_facts(folder, what="image")
        return cls(spec, ReaderOptions(**options))

    @classmethod
    def fit(cls, source: Source, options: ReaderOptions | None = None) -> ImageReader:
        """A reader for this source, from a keyed sample of its records.

        Channels and type are those of most records; unreadable records are passed over (the
        loader reports them). Raises `UserError` when none can be read.
        """
        chosen = options or ReaderOptions()
        images = look_at_some(
            source, chosen.measure, lambda r: stored(r.payload, chosen), what="image"
        )
        return cls(measure(images, size=chosen.size, normalize=chosen.normalize), chosen)


def stored(payload: Any, options: ReaderOptions) -> Tensor:
    """A payload decoded and bounded to `options.max_side`, in its own channels and type."""
    image = decode_image(
        payload,
        max_pixels=options.max_pixels,
        max_bytes=options.max_bytes,
        keep_alpha=options.alpha == "keep",
    )
    height, width = image.shape[1:]
    scale = options.max_side / min(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels = image if image.dtype == torch.uint8 else image.to(torch.float32)
    pixels = torch.nn.functional.interpolate(
        pixels[None], size=size, mode="bilinear", antialias=True
    )[0]
    if image.dtype == torch.uint16:
        pixels = pixels.round_().to(torch.int32).to(torch.uint16)
    return pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def with_channels(image: Tensor, channels: int) -> Tensor:
    """Grey to any count by repetition, RGB to grey by luma (ITU-R 601); else `CorruptSample`."""
    have = image.shape[0]
    if have == channels:
        return image
    if have == 1:
        return image.permute(1, 2, 0).repeat(1, 1, channels).permute(2, 0, 1)
    if have == 3 and channels == 1:
        weights = torch.tensor(_LUMA)
        grey = torch.tensordot(image.permute(1, 2, 0).to(torch.float32), weights, dims=1)
        grey = grey if image.is_floating_point() else grey.round_().to(torch.int32).to(image.dtype)
        return grey[None]
    raise CorruptSample(f"{have} channels, while most images of the data have {channels}")


def as_dtype(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Integer types are rescaled (255 becomes 65535); floats are kept as they are.

    Raises `CorruptSample` for a float image among integer ones: its range is not known.
    """
    if image.dtype == dtype:
        return image
    if image.dtype not in _FULL:
        raise CorruptSample(f"{image.dtype} image, while most images of the data are {dtype}")
    value = image.to(torch.float32) / _FULL[image.dtype]
    if dtype in _FULL:
        return (value * _FULL[dtype]).round_().to(torch.int32).to(dtype)
    return value
