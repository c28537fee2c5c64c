"""View policies by name: which clips of a video a method compares.

All take the data's spec and keyword options; `size`, `frames` and `stride` None follow the data
(see `settings.sizes`). Other options are those of `settings.augmentation`, drawn once a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_video.clips import length_of
from ssl_video.views.pipeline import ClipAugmentation
from ssl_video.views.settings import Range, Sizes, Spec, augmentation, sizes
from ssl_video.views.temporal import Gap, looped, starts


@dataclass(frozen=True)
class ClipPolicy:
    """Random clips of every video, one for each of `views`, and one plain clip."""

    sizes: Sizes
    views: tuple[ClipAugmentation, ...] = ()
    gap: Gap = "free"
    reverse: float = 0.0

    @property
    def spec(self) -> Spec:
        """The reader's facts, with the sizes that encoders will see."""
        return self.sizes.spec

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        if not self.views:
            return [View(self.plain(batch), rng.fold("view", 0))]
        total = self.sizes.total
        # Where a batch holds several windows of a video, free clips take them in turn.
        several = length_of(batch.data) // total if self.gap == "free" else 1
        first = starts(rng, len(self.views), self.sizes.room, self.gap)
        stride = torch.full_like(batch.ids, self.sizes.stride)
        made = []
        for v, view in enumerate(self.views):
            own = rng.fold("view", v)
            index = looped(first[:, v], stride, self.sizes.frames, total) + total * (v % several)
            if self.reverse:
                back = own.bernoulli("reverse", p=self.reverse)
                index = torch.where(back[:, None], index.flip(1), index)
            made.append(view(batch, index, own))
        return made

    def plain(self, batch: Batch) -> Tensor:
        """float32 `[B, C, frames, size, size]`, normalised."""
        return self.sizes.plain(batch)

    def plains(self, batch: Batch) -> list[Tensor]:
        """The clips whose features evaluation averages: `data.options.test_clips` of them."""
        return self.sizes.plain.several(batch)


def clips(
    spec: Spec,
    *,
    size: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    views: int = 2,
    gap: Gap = "free",
    reverse: float = 0.0,
    solarise: Range = (0.0, 0.0),
    **options: Any,
) -> ClipPolicy:
    """Clips of one video with strong augmentation, each drawn alone but constant in time.

    `gap` "near" with two views is CVRL (Qian et al. 2021). "free" with `views` = rho are the rho
    clips of Feichtenhofer et al. 2021, anywhere in a long video with `data.options.clips` = rho.
    "same" augments one span of time twice. `reverse` plays a clip backwards with that probability.
    `solarise` gives the first two views' probabilities.
    """
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    if gap not in ("free", "near", "same"):
        raise ValueError(f"gap must be free, near or same, got {gap!r}")
    shape = sizes(spec, size, frames, stride)
    share = [float(p) for p in solarise] + [0.0] * views
    made = [
        augmentation(spec, shape.size, solarise=share[v], **_checked(options)) for v in range(views)
    ]
    return ClipPolicy(shape, tuple(made), gap, reverse)


def dino(
    spec: Spec,
    *,
    size: int | None = None,
    local_size: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    global_views: int = 2,
    local_views: int = 4,
    global_scale: Range = (0.4, 1.0),
    local_scale: Range = (0.05, 0.4),
    solarise: float = 0.0,
    **options: Any,
) -> ClipPolicy:
    """Multi-crop in space and time: clips at random times, global ones first, then smaller ones.

    `local_size` defaults to 3/7 of `size`, a multiple of 8 and at least 16.
    """
    if global_views < 1 or local_views < 0:
        raise ValueError(f"need a global view, got global_views={global_views}")
    shape = sizes(spec, size, frames, stride)
    small = local_size if local_size is not None else max(16, shape.size * 3 // 7 // 8 * 8)
    options = _checked(options)
    first = augmentation(spec, shape.size, scale=global_scale, **options)
    second = augmentation(spec, shape.size, scale=global_scale, solarise=solarise, **options)
    local = augmentation(spec, small, scale=local_scale, role="local", **options)
    views = [first, *[second] * (global_views - 1), *[local] * local_views]
    return ClipPolicy(shape, tuple(views))


def mae(
    spec: Spec,
    *,
    size: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    scale: Range = (0.5, 1.0),
    flip: float = 0.5,
) -> ClipPolicy:
    """One crop and flip of one clip, for masked methods."""
    shape = sizes(spec, size, frames, stride)
    view = augmentation(spec, shape.size, scale=scale, flip=flip, jitter=0.0, grey=0.0, blur=0.0)
    return ClipPolicy(shape, (view,))


def none(
    spec: Spec, *, size: int | None = None, frames: int | None = None, stride: int | None = None
) -> ClipPolicy:
    """One view, the plain one: nothing random."""
    return ClipPolicy(sizes(spec, size, frames, stride))


def _checked(options: dict[str, Any], taken: Sequence[str] = ()) -> dict[str, Any]:
    """Options of `augmentation`; an unknown one is a `UserError` with the nearest name."""
    from ssl_core.registry import check_options

    check_options("views", augmentation, options, positional=2)
    return options
