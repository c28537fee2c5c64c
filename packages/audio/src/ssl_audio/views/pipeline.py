"""One view of a batch: segment, changes of the wave, features, changes of the spectrogram."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ssl_audio.features import log_mel
from ssl_audio.reader import feature_config, plain_spectrogram
from ssl_audio.views.spectrogram import Mixup, ResizeCrop, Roll, SpecMask, Tilt
from ssl_audio.views.waveform import Gain, Noise, Reverb, Speed
from ssl_audio.waves import Segment
from ssl_core.batch import Batch
from ssl_core.rng import Rng
from ssl_core.views import View

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class WaveChain:
    """Changes of the wave, in this order; None leaves one out."""

    speed: Speed | None = None
    reverb: Reverb | None = None
    noise: Noise | None = None
    gain: Gain | None = None

    def __call__(self, wave: Tensor, rng: Rng, params: dict[str, Tensor]) -> Tensor:
        """The changed wave; what was drawn goes into `params`."""
        if self.speed is not None and self.speed.p:
            params["speed"] = self.speed.sample(rng)
            wave = self.speed.apply(wave, params["speed"])
        if self.reverb is not None and self.reverb.p:
            wave = self.reverb.apply(wave, self.reverb.sample(rng))
        if self.noise is not None and self.noise.p:
            drawn = self.noise.sample(rng, wave.shape[1])
            params["noise"] = drawn.amplitude
            wave = self.noise.apply(wave, drawn)
        if self.gain is not None:
            params["gain"] = self.gain.sample(rng)
            wave = self.gain.apply(wave, params["gain"])
        return wave


@dataclass(frozen=True)
class MelChain:
    """Changes of the spectrogram; normalisation stands between mixup and resize crop (BYOL-A)."""

    spec: Spec
    mixup: Mixup | None = None
    tilt: Tilt | None = None
    resize: ResizeCrop | None = None
    roll: Roll | None = None
    mask: SpecMask | None = None

    def __call__(self, x: Tensor, rng: Rng, params: dict[str, Tensor]) -> Tensor:
        """`[B, F, T]` log-mel to normalised log-mel."""
        bands, frames = x.shape[1:]
        if self.mixup is not None and self.mixup.most:
            drawn = self.mixup.sample(rng, bands, frames)
            params["mixup"] = drawn.share
            x = self.mixup.apply(x, drawn)
        if self.tilt is not None and self.tilt.strength:
            params["tilt"] = self.tilt.sample(rng, bands)
            x = self.tilt.apply(x, params["tilt"])
        x = (x - self.spec["mean"]) / self.spec["std"]
        if self.resize is not None:
            params["boxes"] = self.resize.sample(rng, bands, frames)
            x = self.resize.apply(x, params["boxes"])
        if self.roll is not None:
            params["roll"] = self.roll.sample(rng, frames)
            x = self.roll.apply(x, params["roll"])
        if self.mask is not None:
            hidden = self.mask.sample(rng, bands, frames)
            params["masked_bands"], params["masked_frames"] = hidden
            x = self.mask.apply(x, hidden)
        return x


@dataclass(frozen=True)
class SpectrogramView:
    """`frames` of log-mel, `[B, 1, mels, frames]`.

    Views with the same `segment` number show the same part of the recording.
    """

    spec: Spec
    frames: int
    wave: WaveChain
    mel: MelChain
    segment: int = 0
    role: str = "global"

    def __call__(self, batch: Batch, rng: Rng, number: int) -> View:
        """View `number` of a batch, drawn from the step's keys."""
        own = rng.fold("view", number)
        config = feature_config(self.spec)
        segment = Segment(config.samples(self.frames))
        place = segment.sample(rng.fold("segment of view", self.segment))
        params = {"place": place}
        wave = segment.apply(batch.data, place, config.rate)
        wave = self.wave(wave, own, params)
        x = self.mel(log_mel(wave, config), own, params)
        return View(x.unsqueeze(1), own, role=self.role, params=params)


@dataclass(frozen=True)
class SpectrogramPolicy:
    """Random views of every recording, and one plain view: the middle, normalised."""

    spec: Spec
    views: tuple[SpectrogramView, ...] = ()

    def __call__(self, batch: Batch, rng: Rng) -> list[View]:
        if not self.views:
            return [View(self.plain(batch), rng.fold("view", 0))]
        return [view(batch, rng, number) for number, view in enumerate(self.views)]

    def plain(self, batch: Batch) -> Tensor:
        """float32 `[B, 1, mels, frames]`."""
        return plain_spectrogram(batch.data, self.spec)
