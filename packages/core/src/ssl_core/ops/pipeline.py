"""One view of a batch from crop to normalised pixels: all parameters first, then the pixels.

The pixels go through in groups that fit the processor's cache, whole chain per group. Within a
group samples are sorted by the order of their colour operations, so that each order is one slice
and every sample still has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.ops.blur import GaussianBlur
from ssl_core.ops.colour import ColourJitter, Grey, JitterParams, Normalise, Solarise
from ssl_core.ops.geometry import HorizontalFlip, RandomResizedCrop
from ssl_core.ops.pixels import Interpolation, Ragged, crop_resize, image_sizes
from ssl_core.rng import Rng
from ssl_core.views import View

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
        codes: list[int] = params.jitter.codes().tolist()
        for rows in self._groups(codes, channels, out.device):
            # A single image is made in its place; a group is made together and shared out.
            x = crop_resize(
                data,
                params.boxes,
                (self.size, self.size),
                value_range=self.value_range,
                interpolation=self.interpolation,
                flip=params.flip,
                rows=rows,
                out=out[rows[0] : rows[0] + 1] if len(rows) == 1 else None,
            )
            index = torch.tensor(rows, device=out.device)
            made = self.coloured(x, params, index, [codes[row] for row in rows])
            if len(rows) > 1:
                out.index_copy_(0, index, made)
        return out

    def _groups(self, codes: list[int], channels: int, device: torch.device) -> Iterator[list[int]]:
        rows = sorted(range(len(codes)), key=codes.__getitem__)
        length = len(rows)
        if device.type == "cpu":
            length = _GROUP_NUMBERS // (channels * self.size**2)
            length = length if length > 2 else 1  # so few are better made in their places
        for start in range(0, len(rows), length):
            yield rows[start : start + length]

    def coloured(self, x: Tensor, params: ViewParams, index: Tensor, codes: list[int]) -> Tensor:
        """Everything after crop and flip, for pixels in 0..1 that are rows `index` of `params`.

        `codes` are their `JitterParams.codes`; runs of equal ones go together. `x` is changed.
        """
        x = self.jitter.apply(x, codes, params.jitter.factors[index])
        if self.grey.p:
            x = self.grey.apply(x, params.grey[index])
        if self.blur.p:
            x = self.blur.apply(x, params.sigma[index])
        if self.solarise.p:
            x = self.solarise.apply(x, params.solarise[index])
        return self.normalise.apply(x)

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


def augmentation_facts(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What every augmentation takes from the data's spec."""
    return {
        "normalise": Normalise(tuple(spec["mean"]), tuple(spec["std"])),
        "value_range": tuple(spec["range"]),
    }
