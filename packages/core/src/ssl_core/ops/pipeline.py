"""One view of a batch from crop to normalised pixels: all parameters first, then the pixels.

The pixels go through in groups that fit the processor's cache, whole chain per group. Colours take
one of two ways to the same numbers: compiled loops on the CPU where numba is installed, else
torch's operations, for which samples are sorted by the order of their colour operations, so that
each order is one slice and every sample still has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.ops.blur import GaussianBlur
from ssl_core.ops.colour import ColourJitter, Grey, JitterParams, Normalise, Solarise
from ssl_core.ops.fused import fused
from ssl_core.ops.geometry import HorizontalFlip, RandomResizedCrop
from ssl_core.ops.pixels import Interpolation, Ragged, crop_resize, image_sizes
from ssl_core.ops.sending import sent
from ssl_core.rng import Rng
from ssl_core.views import View

_STREAMS = {
    name: count
    for op in (RandomResizedCrop, HorizontalFlip, ColourJitter, Grey, GaussianBlur, Solarise)
    for name, count in op.STREAMS.items()
}
_GROUP_NUMBERS = 300_000
"""Numbers of a group on the CPU, about 1.2 MB: one RGB image at 224, a hundred at 32."""


@dataclass(frozen=True)
class ViewParams:
    """Everything random about one view; every field has leading dimension B."""

    boxes: Tensor
    flip: Tensor
    jitter: JitterParams
    grey: Tensor
    sigma: Tensor
    solarise: Tensor
    image_size: Tensor

    def provenance(self) -> dict[str, Tensor]:
        """Flat, for `View.params`."""
        return {
            "boxes": self.boxes,
            "flip": self.flip,
            "image_size": self.image_size,
            "jittered": self.jitter.applied,
            "jitter_factors": self.jitter.factors,
            "jitter_order": self.jitter.order,
            "grey": self.grey,
            "blur_sigma": self.sigma,
            "solarise": self.solarise,
        }


@dataclass(frozen=True)
class Augmentation:
    """Crop, flip, jitter, grey, blur, solarise, normalise, in this order."""

    size: int
    normalise: Normalise
    value_range: tuple[float, float] = (0.0, 255.0)
    crop: RandomResizedCrop = field(default_factory=RandomResizedCrop)
    flip: HorizontalFlip = field(default_factory=HorizontalFlip)
    jitter: ColourJitter = field(default_factory=lambda: ColourJitter(p=0.0))
    grey: Grey = field(default_factory=lambda: Grey(p=0.0))
    blur: GaussianBlur = field(default_factory=lambda: GaussianBlur(p=0.0))
    solarise: Solarise = field(default_factory=lambda: Solarise(p=0.0))
    interpolation: Interpolation = "bilinear"
    role: str = "global"

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(
                f"interpolation must be bilinear or bicubic, got {self.interpolation!r}"
            )

    def sample(self, rng: Rng, sizes: Tensor) -> ViewParams:
        """All random choices of this view, for images of `sizes` (`[B, 2]`)."""
        rng = rng.ahead(_STREAMS)
        return ViewParams(
            boxes=self.crop.sample(rng, sizes),
            flip=self.flip.sample(rng),
            jitter=self.jitter.sample(rng),
            grey=self.grey.sample(rng),
            sigma=self.blur.sample(rng),
            solarise=self.solarise.sample(rng),
            image_size=sizes,
        )

    def apply(self, data: Tensor | Ragged, params: ViewParams) -> Tensor:
        """The pixels: float32 `[V B, C, size, size]`; row r shows image r modulo B."""
        channels = data[0].shape[0]
        out = torch.empty(len(params.flip), channels, self.size, self.size, device=data[0].device)
        finish = self.colouring(params)
        for rows in self._groups(finish.order, channels, out.device):
            # Neighbours are made in their place; others are made together and shared out.
            first = rows[0]
            together = rows == list(range(first, first + len(rows)))
            x = crop_resize(
                data,
                params.boxes,
                (self.size, self.size),
                value_range=self.value_range,
                interpolation=self.interpolation,
                flip=params.flip,
                rows=rows,
                out=out[first : first + len(rows)] if together else None,
            )
            finish(x, rows)
            if not together:
                out.index_copy_(0, sent(rows, out.device), x)
        return out

    def _groups(self, order: list[int], channels: int, device: torch.device) -> Iterator[list[int]]:
        length = len(order)
        if device.type == "cpu":
            length = _GROUP_NUMBERS // (channels * self.size**2)
            length = length if length > 2 else 1  # so few are better made in their places
        for start in range(0, len(order), length):
            yield order[start : start + length]

    def colouring(self, params: ViewParams) -> Colouring:
        """Everything after crop and flip, for pixels of which each is a row of `params`."""
        kernels = fused(params.flip.device)
        return Stages(self, params) if kernels is None else kernels.Chain(self, params)

    def views(self, batch: Batch, rngs: Sequence[Rng]) -> list[View]:
        """One view of the batch for each of `rngs`; drawn and made together, which is faster."""
        sizes = image_sizes(batch.data).repeat(len(rngs), 1)
        params = self.sample(Rng.cat(rngs), sizes)
        pixels = self.apply(batch.data, params).split(len(batch))
        facts = {name: x.split(len(batch)) for name, x in params.provenance().items()}
        return [
            View(x, rng, role=self.role, params={name: parts[v] for name, parts in facts.items()})
            for v, (x, rng) in enumerate(zip(pixels, rngs, strict=True))
        ]

    def __call__(self, batch: Batch, rng: Rng) -> View:
        """This view of a batch, drawn from `rng`."""
        return self.views(batch, [rng])[0]


class Colouring(Protocol):
    """Changes pixels after the crop."""

    order: list[int]
    """All rows, in the order in which they are made fastest."""

    def __call__(self, x: Tensor, rows: list[int]) -> Tensor:
        """In place: `[N, C, H, W]` in 0..1, contiguous, which are `rows` of the parameters."""
        ...


class Stages:
    """Operation by operation, each on all rows that want it next."""

    def __init__(self, augmentation: Augmentation, params: ViewParams) -> None:
        self._augmentation, self._params = augmentation, params
        # Orders are read from the device only where there are any.
        drawn = augmentation.jitter.p > 0
        self._codes: list[int] = params.jitter.codes().tolist() if drawn else [0] * len(params.flip)
        self.order = sorted(range(len(self._codes)), key=self._codes.__getitem__)

    def __call__(self, x: Tensor, rows: list[int]) -> Tensor:
        chain, params = self._augmentation, self._params
        index = sent(rows, x.device)
        codes = [self._codes[row] for row in rows]
        x = chain.jitter.apply(x, codes, params.jitter.factors[index])
        if chain.grey.p:
            x = chain.grey.apply(x, params.grey[index])
        if chain.blur.p:
            x = chain.blur.apply(x, params.sigma[index])
        if chain.solarise.p:
            x = chain.solarise.apply(x, params.solarise[index])
        return chain.normalise.apply(x)


def augmentation_facts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What every augmentation takes from the data's spec."""
    return {
        "normalise": Normalise(tuple(spec["mean"]), tuple(spec["std"])),
        "value_range": tuple(spec["range"]),
    }
