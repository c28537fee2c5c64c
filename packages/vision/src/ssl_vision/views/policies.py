"""View policies by name: which views of an image a method compares, with the papers' strengths.

All take the data's spec and keyword options; `size` None means the spec's. Below 160 pixels the
defaults follow the papers' small-image settings: no blur, and half colour strength for SimCLR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.ops.blur import GaussianBlur
from ssl_core.ops.colour import ColourJitter, Grey, Normalise, Solarise
from ssl_core.ops.geometry import HorizontalFlip, RandomResizedCrop
from ssl_core.ops.pipeline import Augmentation, augmentation_facts
from ssl_core.ops.pixels import Interpolation, resize
from ssl_core.rng import Rng
from ssl_core.views import View

_LARGE = 160
Spec = Mapping[str, Any]
Range = Sequence[float]


@dataclass(frozen=True)
class ImagePolicy:
    """Random views of every image, and one plain view: the centre square, resized."""

    spec: Spec
    size: int
    views: tuple[Augmentation, ...] = ()
    plain_fraction: float = 1.0

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        if not self.views:
            own = rng.fold("view", 0)
            return [View(self.plain(batch), own)]
        keys = [rng.fold("view", v) for v in range(len(self.views))]
        out: list[View] = []
        for make, run in groupby(self.views):
            count = len(list(run))
            out += make.views(batch, keys[len(out) : len(out) + count])
        return out

    def plain(self, batch: Batch) -> Tensor:
        """float32 `[B, C, size, size]`, normalised."""
        pixels = resize(batch.data, self.size, self.spec, fraction=self.plain_fraction)
        return Normalise(tuple(self.spec["mean"]), tuple(self.spec["std"])).apply(pixels)


def _policy(spec: Spec, size: int | None, views: Sequence[Augmentation]) -> ImagePolicy:
    side = _side(spec, size)
    spec = {**spec, "view_size": side}  # encoders are built for what they will see
    # At photograph sizes evaluation keeps 224/256 of the shorter side, as ImageNet protocols do.
    return ImagePolicy(spec, side, tuple(views), 0.875 if side >= _LARGE else 1.0)


def _side(spec: Spec, size: int | None) -> int:
    side = int(spec["size"]) if size is None else size
    if not isinstance(side, int) or side < 4:
        raise ValueError(f"size must be an integer of at least 4, got {size!r}")
    return side


def _repeated(view: Augmentation, count: int) -> list[Augmentation]:
    if count < 1:
        raise ValueError(f"views must be at least 1, got {count}")
    return [view] * count


def _pair(name: str, value: Range) -> tuple[float, float]:
    if len(value) != 2:
        raise ValueError(f"{name} must be two numbers (low, high), got {value!r}")
    return float(value[0]), float(value[1])


def _kernel(size: int) -> int:
    """A tenth of the side, odd: 23 at 224 (SimCLR App. A)."""
    return max(3, size // 10 | 1)


def simclr(
    spec: Spec,
    *,
    size: int | None = None,
    views: int = 2,
    scale: Range = (0.08, 1.0),
    strength: float | None = None,
    jitter: float = 0.8,
    grey: float = 0.2,
    blur: float | None = None,
    flip: float = 0.5,
    interpolation: Interpolation = "bilinear",
) -> ImagePolicy:
    """SimCLR (Chen et al. 2020, App. A): symmetric views with strong colour distortion.

    `strength` multiplies jitter (0.8, 0.8, 0.8, 0.2) and defaults to 1, below 160 pixels to 0.5;
    `jitter`, `grey`, `blur`, `flip` are probabilities, `blur` defaulting to 0.5 or, below 160, 0.
    """
    side = _side(spec, size)
    large = side >= _LARGE
    s = strength if strength is not None else (1.0 if large else 0.5)
    view = Augmentation(
        side,
        crop=RandomResizedCrop(_pair("scale", scale)),
        flip=HorizontalFlip(flip),
        jitter=ColourJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s, p=jitter),
        grey=Grey(grey),
        blur=GaussianBlur(blur if blur is not None else 0.5 * large, kernel=_kernel(side)),
        interpolation=interpolation,
        **augmentation_facts(spec),
    )
    return _policy(spec, size, _repeated(view, views))


def byol(
    spec: Spec,
    *,
    size: int | None = None,
    scale: Range = (0.08, 1.0),
    jitter: float = 0.8,
    grey: float = 0.2,
    blur: Range | None = None,
    solarise: Range = (0.0, 0.2),
    flip: float = 0.5,
    interpolation: Interpolation = "bicubic",
) -> ImagePolicy:
    """BYOL (Grill et al. 2020, App. B): an asymmetric pair, also of Barlow Twins and VICReg.

    Jitter is (0.4, 0.4, 0.2, 0.1); `blur` (default 1 and 0.1; below 160 pixels none) and
    `solarise` give one probability for each of the two views.
    """
    side = _side(spec, size)
    blurred = _pair(
        "blur", blur if blur is not None else ((1.0, 0.1) if side >= _LARGE else (0, 0))
    )
    first = Augmentation(
        side,
        crop=RandomResizedCrop(_pair("scale", scale)),
        flip=HorizontalFlip(flip),
        jitter=ColourJitter(0.4, 0.4, 0.2, 0.1, p=jitter),
        grey=Grey(grey),
        interpolation=interpolation,
        **augmentation_facts(spec),
    )
    pairs = zip(blurred, _pair("solarise", solarise), strict=True)
    views = [
        replace(first, blur=GaussianBlur(b, kernel=_kernel(side)), solarise=Solarise(s))
        for b, s in pairs
    ]
    return _policy(spec, size, views)


def dino(
    spec: Spec,
    *,
    size: int | None = None,
    local_size: int | None = None,
    global_views: int = 2,
    local_views: int = 8,
    global_scale: Range = (0.4, 1.0),
    local_scale: Range = (0.05, 0.4),
    jitter: float = 0.8,
    grey: float = 0.2,
    blur: Sequence[float] | None = None,
    solarise: float = 0.2,
    flip: float = 0.5,
    interpolation: Interpolation = "bicubic",
) -> ImagePolicy:
    """DINO (Caron et al. 2021): multi-crop, two global views first, then local ones.

    `local_size` defaults to 3/7 of `size` (96 at 224), a multiple of 4 and at least 16. `blur`
    gives the probabilities for the first global, the other global and the local views (1, 0.1,
    0.5; below 160 pixels none); `solarise` is that of the global views after the first.
    """
    side = _side(spec, size)
    small = local_size if local_size is not None else max(16, side * 3 // 7 // 4 * 4)
    blurred = blur if blur is not None else ((1.0, 0.1, 0.5) if side >= _LARGE else (0, 0, 0))
    if len(blurred) != 3:
        raise ValueError(f"blur must be three probabilities, got {blur!r}")
    if global_views < 1 or local_views < 0:
        raise ValueError(f"need a global view, got global_views={global_views}")
    first = Augmentation(
        side,
        crop=RandomResizedCrop(_pair("global_scale", global_scale)),
        flip=HorizontalFlip(flip),
        jitter=ColourJitter(0.4, 0.4, 0.2, 0.1, p=jitter),
        grey=Grey(grey),
        blur=GaussianBlur(blurred[0]),
        interpolation=interpolation,
        **augmentation_facts(spec),
    )
    second = replace(first, blur=GaussianBlur(blurred[1]), solarise=Solarise(solarise))
    local = replace(
        first,
        size=small,
        crop=RandomResizedCrop(_pair("local_scale", local_scale)),
        blur=GaussianBlur(blurred[2]),
        role="local",
    )
    return _policy(spec, size, [first, *[second] * (global_views - 1), *[local] * local_views])


def weak(
    spec: Spec,
    *,
    size: int | None = None,
    views: int = 2,
    scale: Range = (0.2, 1.0),
    flip: float = 0.5,
    interpolation: Interpolation = "bicubic",
) -> ImagePolicy:
    """Crop and flip only."""
    view = Augmentation(
        _side(spec, size),
        crop=RandomResizedCrop(_pair("scale", scale)),
        flip=HorizontalFlip(flip),
        interpolation=interpolation,
        **augmentation_facts(spec),
    )
    return _policy(spec, size, _repeated(view, views))


def ressl(
    spec: Spec,
    *,
    size: int | None = None,
    strong_views: int = 1,
    scale: Range = (0.2, 1.0),
    jitter: float = 0.8,
    grey: float = 0.2,
    blur: float | None = None,
    flip: float = 0.5,
    interpolation: Interpolation = "bilinear",
) -> ImagePolicy:
    """ReSSL (Zheng et al. 2021): one view of crop and flip only, then strong ones as in MoCo v2.

    Jitter of the strong views is (0.4, 0.4, 0.4, 0.1); `blur` defaults to 0.5 or, below 160
    pixels, 0.
    """
    side = _side(spec, size)
    gentle = Augmentation(
        side,
        crop=RandomResizedCrop(_pair("scale", scale)),
        flip=HorizontalFlip(flip),
        interpolation=interpolation,
        **augmentation_facts(spec),
    )
    blurred = blur if blur is not None else 0.5 * (side >= _LARGE)
    strong = replace(
        gentle,
        jitter=ColourJitter(0.4, 0.4, 0.4, 0.1, p=jitter),
        grey=Grey(grey),
        blur=GaussianBlur(blurred, kernel=_kernel(side)),
    )
    return _policy(spec, size, [gentle, *_repeated(strong, strong_views)])


def pirl(
    spec: Spec,
    *,
    size: int | None = None,
    puzzle_size: int | None = None,
    scale: Range = (0.08, 1.0),
    puzzle_scale: Range = (0.6, 1.0),
    strength: float = 0.5,
    jitter: float = 0.8,
    grey: float = 0.2,
    flip: float = 0.5,
    interpolation: Interpolation = "bilinear",
) -> ImagePolicy:
    """PIRL (Misra & van der Maaten 2020): the image, then a larger crop that is cut into tiles.

    `puzzle_size` is the side of what is cut (255 at 224) and defaults to 8/7 of `size`, a
    multiple of 3. `strength` multiplies jitter (0.8, 0.8, 0.8, 0.2) of both.
    """
    side = _side(spec, size)
    image = Augmentation(
        side,
        crop=RandomResizedCrop(_pair("scale", scale)),
        flip=HorizontalFlip(flip),
        jitter=ColourJitter(
            0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength, p=jitter
        ),
        grey=Grey(grey),
        interpolation=interpolation,
        **augmentation_facts(spec),
    )
    cut = puzzle_size if puzzle_size is not None else side * 8 // 7 // 3 * 3
    puzzle = replace(
        image,
        size=_side(spec, cut),
        crop=RandomResizedCrop(_pair("puzzle_scale", puzzle_scale)),
        role="puzzle",
    )
    return _policy(spec, size, [image, puzzle])


def mae(
    spec: Spec,
    *,
    size: int | None = None,
    scale: Range = (0.2, 1.0),
    flip: float = 0.5,
    interpolation: Interpolation = "bicubic",
) -> ImagePolicy:
    """One crop and flip, for masked methods (MAE: scale from 0.2; SimMIM: from 0.67)."""
    return weak(spec, size=size, views=1, scale=scale, flip=flip, interpolation=interpolation)


def none(spec: Spec, *, size: int | None = None) -> ImagePolicy:
    """One view, the plain one: nothing random."""
    return _policy(spec, size, [])
