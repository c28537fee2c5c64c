"""Views of an image and its caption, for methods with two towers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.errors import UserError
from ssl_core.ops.pixels import Interpolation
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_vision.views.policies import ImagePolicy, Range, Spec, simclr


@dataclass(frozen=True)
class CaptionedPolicy:
    """The views of an image policy, then the caption's ids with role "caption"."""

    images: ImagePolicy

    @property
    def spec(self) -> Spec:
        """The data's facts, with what the image policy changed."""
        return self.images.spec

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        made = self.images(_images(batch), rng)
        return [*made, View(batch.data.ids, rng.fold("view", len(made)), role="caption")]

    def plain(self, batch: Batch) -> Tensor:
        """The image alone: what evaluation embeds."""
        return self.images.plain(_images(batch))


def _images(batch: Batch) -> Batch:
    return replace(batch, data=batch.data.samples)


def captioned(
    spec: Spec,
    *,
    size: int | None = None,
    views: int = 1,
    scale: Range = (0.5, 1.0),
    strength: float = 0.0,
    jitter: float = 0.0,
    grey: float = 0.0,
    blur: float = 0.0,
    flip: float = 0.0,
    interpolation: Interpolation = "bicubic",
) -> CaptionedPolicy:
    """CLIP (Radford et al. 2021): a random crop and the caption; options as `simclr`'s.

    Mirroring is off: captions may tell left from right.
    """
    if "captions" not in spec:
        raise UserError(
            "views captioned: the data has no captions; name their column, for instance "
            "--set data.options.captions=caption"
        )
    images = simclr(
        spec,
        size=size,
        views=views,
        scale=scale,
        strength=strength,
        jitter=jitter,
        grey=grey,
        blur=blur,
        flip=flip,
        interpolation=interpolation,
    )
    return CaptionedPolicy(images)
