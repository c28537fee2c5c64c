"""What every video view policy is made from: sizes in space and time, and its augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ssl_core.batch import Batch
from ssl_core.ops.blur import GaussianBlur
from ssl_core.ops.colour import ColourJitter, Grey, Normalise, Solarise
from ssl_core.ops.geometry import HorizontalFlip, RandomResizedCrop
from ssl_core.ops.pipeline import Augmentation, augmentation_facts
from ssl_core.ops.pixels import Interpolation
from ssl_video.clips import clips_from, frames_of, length_of, square
from ssl_video.files import plan
from ssl_video.views.pipeline import ClipAugmentation
from ssl_video.views.temporal import span, spread

Spec = Mapping[str, Any]
Range = Sequence[float]
_LARGE = 112


@dataclass(frozen=True)
class Plain:
    """The deterministic clips that evaluation embeds: centre square, normalised.

    One clip in the middle of the video, or `spec["test_clips"]` spread over it: one in the middle
    of each window where the batch holds as many, else all over the one window.
    """

    spec: Spec
    size: int
    frames: int
    stride: int

    def __call__(self, batch: Batch) -> Tensor:
        """The middle clip, float32 `[B, C, frames, size, size]`."""
        return self._clips(batch, 1)[0]

    def several(self, batch: Batch) -> list[Tensor]:
        """`spec["test_clips"]` clips."""
        return self._clips(batch, int(self.spec.get("test_clips", 1)))

    def _clips(self, batch: Batch, clips: int) -> list[Tensor]:
        data = batch.data
        total, device = int(self.spec["window"]), data[0].device
        normalise = Normalise(tuple(self.spec["mean"]), tuple(self.spec["std"]))
        several = length_of(data) // total
        if several == 1:
            places = spread(len(batch), self.frames, self.stride, total, device, clips=clips)
        else:
            (middle,) = spread(len(batch), self.frames, self.stride, total, device)
            places = [middle + total * n for n in plan.spread(several - 1, clips)]
        return [
            clips_from(
                normalise.apply(square(frames_of(data, index), self.size, self.spec)), self.frames
            )
            for index in places
        ]


@dataclass(frozen=True)
class Sizes:
    """Checked lengths of a policy's clips: `size` pixels a side, `frames` frames `stride` apart.

    `spec` has `view_size` and `view_frames` filled in: encoders are built for what they will see.
    """

    spec: Spec
    size: int
    frames: int
    stride: int
    total: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", int(self.spec["window"]))

    @property
    def room(self) -> int:
        """The last frame a clip may start at."""
        return max(0, self.total - span(self.frames, self.stride))

    @property
    def plain(self) -> Plain:
        return Plain(self.spec, self.size, self.frames, self.stride)


def sizes(spec: Spec, size: int | None, frames: int | None, stride: int | None) -> Sizes:
    """Defaults: the spec's size; 16 frames, or as many as the window has; the widest stride up to
    4 at which a quarter of the window is left to choose starts from."""
    side = int(spec["size"]) if size is None else size
    if not isinstance(side, int) or side < 4:
        raise ValueError(f"size must be an integer of at least 4, got {size!r}")
    total = int(spec["window"])
    count = min(16, total) if frames is None else frames
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"frames must be a positive integer, got {frames!r}")
    if stride is None:
        stride = next((s for s in (4, 3, 2) if span(count, s) <= 0.75 * total), 1)
    if not isinstance(stride, int) or stride < 1:
        raise ValueError(f"stride must be a positive integer, got {stride!r}")
    return Sizes({**spec, "view_size": side, "view_frames": count}, side, count, stride)


def pair(name: str, value: Range) -> tuple[float, float]:
    """Two numbers (low, high)."""
    if len(value) != 2:
        raise ValueError(f"{name} must be two numbers (low, high), got {value!r}")
    return float(value[0]), float(value[1])


def augmentation(
    spec: Spec,
    size: int,
    *,
    scale: Range = (0.3, 1.0),
    strength: float | None = None,
    jitter: float = 0.8,
    grey: float = 0.2,
    blur: float | None = None,
    solarise: float = 0.0,
    flip: float = 0.5,
    interpolation: Interpolation = "bilinear",
    role: str = "global",
    per_frame_colour: bool = False,
) -> ClipAugmentation:
    """SimCLR's image augmentation, drawn once a clip.

    `strength` multiplies jitter (0.8, 0.8, 0.8, 0.2) and defaults to 1, below 112 pixels to 0.5;
    `jitter`, `grey`, `blur`, `solarise`, `flip` are probabilities, `blur` defaulting to 0.5 or,
    below 112, 0.
    """
    large = size >= _LARGE
    s = strength if strength is not None else (1.0 if large else 0.5)
    image = Augmentation(
        size,
        crop=RandomResizedCrop(pair("scale", scale)),
        flip=HorizontalFlip(flip),
        jitter=ColourJitter(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s, p=jitter),
        grey=Grey(grey),
        blur=GaussianBlur(blur if blur is not None else 0.5 * large, kernel=max(3, size // 10 | 1)),
        solarise=Solarise(solarise),
        interpolation=interpolation,
        role=role,
        **augmentation_facts(spec),
    )
    return ClipAugmentation(image, per_frame_colour)
