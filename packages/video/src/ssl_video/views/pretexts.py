"""Views whose making is the label: known orders, speeds and differences in time.

Options other than those named are those of `settings.augmentation`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View
from ssl_video.views.affine import Affine
from ssl_video.views.pipeline import ClipAugmentation
from ssl_video.views.policies import _checked
from ssl_video.views.settings import Sizes, Spec, augmentation, sizes
from ssl_video.views.temporal import looped, span, starts

Maker = Callable[[Batch, Rng], list[View]]


@dataclass(frozen=True)
class PretextPolicy:
    """A function that makes the views, and one plain clip."""

    sizes: Sizes
    make: Callable[[Sizes, Batch, Rng], list[View]]

    @property
    def spec(self) -> Spec:
        """The reader's facts, with the sizes that encoders will see."""
        return self.sizes.spec

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        return self.make(self.sizes, batch, rng)

    def plain(self, batch: Batch) -> Tensor:
        """float32 `[B, C, frames, size, size]`, normalised."""
        return self.sizes.plain(batch)

    def plains(self, batch: Batch) -> list[Tensor]:
        """The clips whose features evaluation averages: `data.options.test_clips` of them."""
        return self.sizes.plain.several(batch)


def _full(batch: Batch, value: int) -> Tensor:
    return torch.full_like(batch.ids, value)


def order(
    spec: Spec,
    *,
    clips: int = 3,
    gap: int = 8,
    size: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    **options: Any,
) -> PretextPolicy:
    """`clips` clips in true order, `gap` stored frames between them, one spatial draw for all.

    VCOP (Xu et al. 2019): three clips of 16 frames with gaps of 8. With `frames` 1 these are
    ordered frames (OPN).
    """
    if clips < 2 or gap < 0:
        raise ValueError(f"need at least 2 clips and a gap of at least 0, got {clips} and {gap}")
    shape = sizes(spec, size, frames, 1 if stride is None else stride)
    reach = clips * (span(shape.frames, shape.stride) + gap) - gap
    _fits(shape, reach, f"{clips} clips of {shape.frames} frames with gaps of {gap}")
    view = augmentation(spec, shape.size, **_checked(options))
    return PretextPolicy(shape, partial(_ordered, view, clips, gap))


def _fits(shape: Sizes, reach: int, what: str, stride: int | None = None) -> None:
    if reach > shape.total:
        raise ValueError(
            f"{what}, {stride or shape.stride} apart, need {reach} frames, the stored window has "
            f"{shape.total}; lower frames, stride or gap, or raise data.options.window"
        )


def geometry(
    spec: Spec,
    *,
    clips: int = 4,
    gap: int = 3,
    frames: int = 1,
    size: int | None = None,
    turn: float = 30.0,
    shift: float = 0.15,
    zoom: float = 1.25,
    shear: float = 15.0,
    **options: Any,
) -> PretextPolicy:
    """The clips of `order`, by default four single frames, all under one affine map.

    `params["affine"]` holds its parameters (`affine.PARAMETERS`), normalised to -1..1. The crop is
    the whole picture, and nothing is flipped, unless options say otherwise.
    """
    options = {"scale": (1.0, 1.0), "flip": 0.0} | options
    policy = order(spec, clips=clips, gap=gap, size=size, frames=frames, stride=1, **options)
    return replace(policy, make=partial(_warped, policy.make, Affine(turn, shift, zoom, shear)))


def _warped(
    make: Callable[[Sizes, Batch, Rng], list[View]],
    affine: Affine,
    shape: Sizes,
    batch: Batch,
    rng: Rng,
) -> list[View]:
    params = affine.sample(rng)
    return [
        replace(v, data=affine.apply(v.data, params), params={**v.params, "affine": params})
        for v in make(shape, batch, rng)
    ]


def _ordered(
    view: ClipAugmentation, clips: int, gap: int, shape: Sizes, batch: Batch, rng: Rng
) -> list[View]:
    total = shape.total
    each = span(shape.frames, shape.stride) + gap
    room = total - (clips * each - gap)
    first = rng.integers("clip start", high=room + 1)
    made = [
        view(batch, looped(first + n * each, _full(batch, shape.stride), shape.frames, total), rng)
        for n in range(clips)
    ]
    return [View(v.data, rng.fold("view", n), params=v.params) for n, v in enumerate(made)]


def pace(
    spec: Spec,
    *,
    paces: int = 4,
    size: int | None = None,
    frames: int | None = None,
    per_frame_colour: bool = True,
    loop: bool = True,
    **options: Any,
) -> PretextPolicy:
    """One clip at a stride drawn from 1..`paces`; `params["pace"]` holds stride - 1.

    Pace (Wang et al. 2020): the start is even over the window, short videos begin anew, and colour
    is jittered frame by frame so that it does not tell speed. Without `loop` clips start only
    where they fit: in short videos the jump back to the beginning is common, more so the faster
    the clip, and would tell the pace without a look at what moves.
    """
    if paces < 2:
        raise ValueError(f"paces must be at least 2, got {paces}")
    shape = sizes(spec, size, frames, 1)
    if not loop:
        reach = span(shape.frames, paces)
        _fits(shape, reach, f"loop=false with {paces} paces: clips of {shape.frames} frames", paces)
    view = augmentation(
        spec, shape.size, **_checked({**options, "per_frame_colour": per_frame_colour})
    )
    return PretextPolicy(shape, partial(_paced, view, paces, loop))


def _paced(
    view: ClipAugmentation, paces: int, loop: bool, shape: Sizes, batch: Batch, rng: Rng
) -> list[View]:
    total = shape.total
    own = rng.fold("view", 0)
    label = own.integers("pace", high=paces)
    room = total - 1 if loop else total - 1 - (shape.frames - 1) * (label + 1)
    start = own.integers("clip start", high=room + 1)
    made = view(batch, looped(start, label + 1, shape.frames, total), own)
    return [View(made.data, own, params={**made.params, "pace": label})]


def speeds(
    spec: Spec,
    *,
    fast: int = 2,
    size: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    **options: Any,
) -> PretextPolicy:
    """RSPNet's three clips (Chen et al. 2021): two at one speed, the third at the other.

    Which of stride and `fast` x stride comes twice is drawn for every video.
    """
    if fast < 2:
        raise ValueError(f"fast must be at least 2, got {fast}")
    shape = sizes(spec, size, frames, 1 if stride is None else stride)
    return PretextPolicy(
        shape, partial(_speeds, augmentation(spec, shape.size, **_checked(options)), fast)
    )


def _speeds(view: ClipAugmentation, fast: int, shape: Sizes, batch: Batch, rng: Rng) -> list[View]:
    total = shape.total
    hurried = rng.bernoulli("speed", p=0.5)
    slow, quick = _full(batch, shape.stride), _full(batch, shape.stride * fast)
    same, other = torch.where(hurried, quick, slow), torch.where(hurried, slow, quick)
    made = []
    for n, stride in enumerate((same, same, other)):
        own = rng.fold("view", n)
        room = (total - 1 - (shape.frames - 1) * stride).clamp(min=0)
        start = own.integers("clip start", high=room + 1)
        made.append(view(batch, looped(start, stride, shape.frames, total), own))
        made[-1] = View(made[-1].data, own, params={**made[-1].params, "stride": stride})
    return made


def triplet(
    spec: Spec,
    *,
    gap: int = 3,
    size: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    **options: Any,
) -> PretextPolicy:
    """TOV-VICReg's views: two strong ones of a clip, then the clip, the one `gap` stored frames
    before and the one after, only lightly coloured and with one spatial draw for the three."""
    if gap < 1:
        raise ValueError(f"gap must be at least 1, got {gap}")
    shape = sizes(spec, size, frames, 1 if stride is None else stride)
    reach = span(shape.frames, shape.stride) + 2 * gap
    _fits(shape, reach, f"clips of {shape.frames} frames with {gap} before and after")
    strong = augmentation(spec, shape.size, **_checked(options))
    light = augmentation(spec, shape.size, scale=(1.0, 1.0), strength=0.1, grey=0, blur=0, flip=0)
    return PretextPolicy(shape, partial(_triplet, strong, light, gap))


def _triplet(
    strong: ClipAugmentation,
    light: ClipAugmentation,
    gap: int,
    shape: Sizes,
    batch: Batch,
    rng: Rng,
) -> list[View]:
    total = shape.total
    room = total - span(shape.frames, shape.stride) - 2 * gap
    now = gap + rng.integers("clip start", high=room + 1)
    stride = _full(batch, shape.stride)
    index = [looped(now + shift, stride, shape.frames, total) for shift in (0, -gap, gap)]
    views = [strong(batch, index[0], rng.fold("view", n)) for n in range(2)]
    same = rng.fold("light")
    for n, frames in enumerate(index):
        made = light(batch, frames, same)
        views.append(View(made.data, rng.fold("view", 2 + n), role="order", params=made.params))
    return views


def decoupled(
    spec: Spec,
    *,
    size: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    fast: int = 2,
    **options: Any,
) -> PretextPolicy:
    """HDC's clips (Zhang & Crandall 2022): an anchor; for the spatial task the same draw in space
    at another time and speed; for the temporal task the same frames with another draw in space,
    then those frames with their time altered, in the second draw: reversed or sped up."""
    shape = sizes(spec, size, frames, stride)
    view = augmentation(spec, shape.size, **_checked(options))
    return PretextPolicy(shape, partial(_decoupled, view, fast))


def _decoupled(
    view: ClipAugmentation, fast: int, shape: Sizes, batch: Batch, rng: Rng
) -> list[View]:
    total = shape.total
    first = starts(rng, 2, shape.room, "free")
    stride = _full(batch, shape.stride)
    index = looped(first[:, 0], stride, shape.frames, total)
    spent = looped(first[:, 1], stride * fast, shape.frames, total)
    hurried = looped(first[:, 0], stride * fast, shape.frames, total)
    back = rng.bernoulli("reverse", p=0.5)[:, None]
    altered = torch.where(back, index.flip(1), hurried)
    space, other = rng.fold("space", 0), rng.fold("space", 1)
    draws: Sequence[tuple[Tensor, Rng, str]] = (
        (index, space, "anchor"),
        (spent, space, "spatial"),
        (index, other, "temporal"),
        (altered, other, "altered"),
    )
    made = []
    for n, (frames, key, role) in enumerate(draws):
        v = view(batch, frames, key)
        made.append(View(v.data, rng.fold("view", n), role=role, params=v.params))
    return made


def derivatives(
    spec: Spec,
    *,
    highest: int = 2,
    size: int | None = None,
    frames: int | None = None,
    stride: int | None = None,
    **options: Any,
) -> PretextPolicy:
    """ViDiDi's clips (2024): two random ones of `frames` + `highest` frames, so that every
    temporal derivative up to `highest` has `frames` left; the method takes the differences."""
    if highest < 0:
        raise ValueError(f"highest must be at least 0, got {highest}")
    shape = sizes(spec, size, frames, stride)
    view = augmentation(spec, shape.size, **_checked(options))
    return PretextPolicy(shape, partial(_longer, view, highest))


def _longer(
    view: ClipAugmentation, highest: int, shape: Sizes, batch: Batch, rng: Rng
) -> list[View]:
    total = shape.total
    frames = shape.frames + highest
    first = starts(rng, 2, max(0, total - span(frames, shape.stride)), "free")
    stride = _full(batch, shape.stride)
    return [
        view(batch, looped(first[:, n], stride, frames, total), rng.fold("view", n))
        for n in range(2)
    ]
