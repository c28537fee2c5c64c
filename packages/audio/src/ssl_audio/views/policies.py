"""View policies by name: which parts of a recording a method compares, and how changed.

All take the data's spec and keyword options; `seconds` None means the spec's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ssl_audio.reader import feature_config, plain_wave
from ssl_audio.views.pipeline import MelChain, SpectrogramPolicy, SpectrogramView, WaveChain
from ssl_audio.views.spectrogram import Mixup, ResizeCrop, Roll, SpecMask, Tilt
from ssl_audio.views.waveform import Gain, Noise, Reverb, Speed
from ssl_audio.waves import Segment
from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View

Spec = Mapping[str, Any]
Range = Sequence[float]
_PATCH = 16


def frames_of(spec: Spec, seconds: float | None) -> int:
    """Frames of a view of `seconds`, in whole patches of 16."""
    if seconds is None:
        return int(spec["frames"])
    config = feature_config(spec)
    frames = round(seconds * config.rate / config.hop)
    if frames < _PATCH:
        raise ValueError(
            f"seconds must be at least {_PATCH * config.hop / config.rate:g}, got {seconds}"
        )
    return frames - frames % _PATCH


def _pair(name: str, value: Range) -> tuple[float, float]:
    if len(value) != 2 or value[0] > value[1]:
        raise ValueError(f"{name} must be two rising numbers (low, high), got {value!r}")
    return float(value[0]), float(value[1])


def simclr(
    spec: Spec,
    *,
    seconds: float | None = None,
    views: int = 2,
    same_segment: bool = False,
    gain: float = 6.0,
    noise: float = 0.5,
    noise_ratio: Range = (5.0, 30.0),
    reverb: float = 0.3,
    speed: float = 0.0,
    most_speed: float = 1.15,
    mixup: float = 0.0,
    tilt: float = 1.0,
    resize: Range | None = None,
    masks: int = 0,
) -> SpectrogramPolicy:
    """Two segments of one recording (COLA: Saeed et al. 2021), each changed at random.

    `gain` is in decibels, `noise`, `reverb` and `speed` are probabilities, `noise_ratio` a
    signal-to-noise ratio in decibels, `mixup` the largest share of coloured noise, `tilt` how far
    the spectrum is coloured, `resize` the scale of a random resize crop, `masks` the number of
    SpecAugment's bands and spans.
    """
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    rate = int(spec["rate"])
    view = SpectrogramView(
        spec,
        frames_of(spec, seconds),
        WaveChain(
            speed=Speed(most_speed, p=speed),
            reverb=Reverb(rate, p=reverb),
            noise=Noise(*_pair("noise_ratio", noise_ratio), p=noise),
            gain=Gain(gain),
        ),
        MelChain(
            spec,
            mixup=Mixup(mixup),
            tilt=Tilt(tilt),
            resize=None if resize is None else ResizeCrop(_pair("resize", resize)),
            mask=SpecMask(bands=masks, spans=masks) if masks else None,
        ),
    )
    places = [0 if same_segment else number for number in range(views)]
    return SpectrogramPolicy(spec, tuple(replace(view, segment=place) for place in places))


def byol(
    spec: Spec,
    *,
    seconds: float | None = None,
    mixup: float = 0.4,
    scale: Range = (0.6, 1.5),
    canvas: float = 1.5,
    tilt: float = 0.0,
    gain: float = 0.0,
    same_segment: bool = True,
) -> SpectrogramPolicy:
    """BYOL-A (Niizumi et al. 2021): one segment twice, mixed with a background and resize-cropped.

    With `same_segment=False` the two views are different segments (ATST-Clip).
    """
    view = SpectrogramView(
        spec,
        frames_of(spec, seconds),
        WaveChain(gain=Gain(gain) if gain else None),
        MelChain(
            spec,
            mixup=Mixup(mixup),
            tilt=Tilt(tilt),
            resize=ResizeCrop(_pair("scale", scale), canvas),
        ),
    )
    return SpectrogramPolicy(spec, (view, replace(view, segment=0 if same_segment else 1)))


def dino(
    spec: Spec,
    *,
    seconds: float | None = None,
    local_seconds: float | None = None,
    global_views: int = 2,
    local_views: int = 4,
    mixup: float = 0.3,
    tilt: float = 1.0,
    gain: float = 6.0,
    noise: float = 0.5,
) -> SpectrogramPolicy:
    """Long segments and short ones (multi-crop in time); short ones last half as long or less."""
    frames = frames_of(spec, seconds)
    short = frames_of(spec, local_seconds) if local_seconds is not None else frames // 2
    short = max(_PATCH, short - short % _PATCH)
    if short > frames:
        raise ValueError(f"local_seconds {local_seconds} is longer than the global views")
    view = SpectrogramView(
        spec,
        frames,
        WaveChain(noise=Noise(p=noise), gain=Gain(gain)),
        MelChain(spec, mixup=Mixup(mixup), tilt=Tilt(tilt)),
    )
    sizes = [(frames, "global")] * global_views + [(short, "local")] * local_views
    made = [replace(view, frames=n, segment=i, role=role) for i, (n, role) in enumerate(sizes)]
    return SpectrogramPolicy(spec, tuple(made))


def mae(
    spec: Spec, *, seconds: float | None = None, gain: float = 6.0, roll: bool = False
) -> SpectrogramPolicy:
    """One random segment at a random level, for masked methods (AudioMAE adds `roll`)."""
    view = SpectrogramView(
        spec,
        frames_of(spec, seconds),
        WaveChain(gain=Gain(gain)),
        MelChain(spec, roll=Roll() if roll else None),
    )
    return SpectrogramPolicy(spec, (view,))


def frames(
    spec: Spec,
    *,
    seconds: float | None = None,
    mixup: float = 0.4,
    scale: Range | None = (0.6, 1.5),
    tilt: float = 0.0,
    noise: float = 0.0,
    noise_ratio: Range = (5.0, 30.0),
) -> SpectrogramPolicy:
    """ATST-Frame: the same segment twice, frame by frame in step; only the first is changed.

    The first (role "student") has a background and a resize crop along frequency (`scale`, None:
    none), and where asked for a `tilt` and noise as in `simclr`; the second (role "teacher") is
    plain.
    """
    teacher = SpectrogramView(
        spec, frames_of(spec, seconds), WaveChain(), MelChain(spec), role="teacher"
    )
    wave = WaveChain(noise=Noise(*_pair("noise_ratio", noise_ratio), p=noise) if noise else None)
    mel = MelChain(
        spec,
        mixup=Mixup(mixup),
        tilt=Tilt(tilt),
        resize=None if scale is None else ResizeCrop(_pair("scale", scale), frequency_only=True),
    )
    return SpectrogramPolicy(spec, (replace(teacher, wave=wave, mel=mel, role="student"), teacher))


@dataclass(frozen=True)
class WavePolicy:
    """Random segments as waves `[B, T]`, each with mean 0 and variance 1."""

    spec: Spec
    count: int
    views: int
    chain: WaveChain

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        made = []
        segment = Segment(self.count)
        for number in range(self.views):
            own = rng.fold("view", number)
            place = segment.sample(rng.fold("segment of view", number))
            params = {"place": place}
            wave = segment.apply(batch.data, place, int(self.spec["rate"]))
            wave = self.chain(wave, own, params)
            made.append(View(standardised(wave), own, params=params))
        return made

    def plain(self, batch: Batch) -> Tensor:
        """float32 `[B, T]`: the middle."""
        return standardised(plain_wave(batch.data, self.spec, self.count))


def standardised(wave: Tensor) -> Tensor:
    """Each recording with mean 0 and variance 1; silence stays silence."""
    wave = wave - wave.mean(1, keepdim=True)
    return wave / wave.square().mean(1, keepdim=True).add(1e-7).sqrt()


def wave(
    spec: Spec,
    *,
    seconds: float | None = None,
    views: int = 1,
    noise: float = 0.0,
    reverb: float = 0.0,
    speed: float = 0.0,
) -> WavePolicy:
    """Waves for encoders that start from them; `noise`, `reverb`, `speed` are probabilities."""
    rate = int(spec["rate"])
    hop = rate // 50  # 20 ms, the step of wave encoders
    count = round((spec["seconds"] if seconds is None else seconds) * rate)
    if count < 10 * hop:
        raise ValueError(f"seconds must be at least 0.2 for wave encoders, got {count / rate:g}")
    if views < 1:
        raise ValueError(f"views must be at least 1, got {views}")
    chain = WaveChain(Speed(p=speed), Reverb(rate, p=reverb), Noise(p=noise))
    return WavePolicy({**spec, "wave": count - count % hop}, count - count % hop, views, chain)


def none(spec: Spec) -> SpectrogramPolicy:
    """The plain view only."""
    return SpectrogramPolicy(spec)
