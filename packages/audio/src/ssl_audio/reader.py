"""From audio records to batches of waves, and the facts encoders and views are built from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_audio.decode import Wave, decode_audio
from ssl_audio.features import PRESETS, FeatureConfig, log_mel
from ssl_audio.options import ReaderOptions
from ssl_audio.waves import Segment, Waves
from ssl_core.batch import Record, Source
from ssl_core.data.reading import load_facts, look_at_some, save_facts
from ssl_core.errors import UserError

_LEAST_FRAMES = 16
_MULTIPLE = 16
"""Frames come in whole patches of the usual sizes."""


class AudioReader:
    """`ssl_core.batch.Reader` for recordings.

    `spec` holds `rate`, `features` (a preset's name), `mels`, `frames` (of the view evaluation
    embeds), `seconds` and `mean`, `std`: what log-mel values are shifted and divided by. Samples
    are `Wave`s at their own rate; a batch is `Waves`.
    """

    def __init__(self, spec: Mapping[str, Any], options: ReaderOptions | None = None) -> None:
        self._spec = dict(spec)
        self.options = options or ReaderOptions()

    @property
    def spec(self) -> Mapping[str, Any]:
        return self._spec

    def decode(self, record: Record) -> Wave:
        """One recording; raises `CorruptSample` with the reason."""
        return _decoded(record, self.options)

    def collate(self, samples: Sequence[Wave]) -> Waves:
        """Side by side, padded with zeros."""
        return Waves.of(samples)

    def raw(self, data: Waves) -> Tensor:
        """Mean and deviation over time of every normalised mel band: `[B, 2 mels]`."""
        spectrogram = plain_spectrogram(data, self._spec)[:, 0]
        return torch.cat([spectrogram.mean(2), spectrogram.std(2)], dim=1)

    def save(self, folder: Path) -> None:
        """Writes `reader.json`."""
        save_facts(folder, self._spec, self.options)

    @classmethod
    def load(cls, folder: Path) -> AudioReader:
        """The reader that `save` wrote."""
        spec, options = load_facts(folder, what="recording")
        return cls(spec, ReaderOptions(**options))

    @classmethod
    def fit(cls, source: Source, options: ReaderOptions | None = None) -> AudioReader:
        """A reader for this source, measured on a keyed sample of its records.

        Unreadable records are passed over (the loader reports them). Raises `UserError` when none
        can be read.
        """
        chosen = options or ReaderOptions()
        waves = look_at_some(
            source, chosen.measure, lambda record: _decoded(record, chosen), what="recording"
        )
        return cls(_measured(waves, chosen), chosen)


def _decoded(record: Record, options: ReaderOptions) -> Wave:
    return decode_audio(
        record.payload,
        max_seconds=options.max_seconds,
        max_bytes=options.max_bytes,
        rate=options.array_rate,
    )


def _measured(waves: Sequence[Wave], options: ReaderOptions) -> dict[str, Any]:
    """The spec: clip length and log-mel statistics of these recordings."""
    config = PRESETS[options.features].at(options.rate)
    seconds = options.seconds
    if seconds is None:
        seconds = float(np.median([len(wave.data) / wave.rate for wave in waves]))
    frames = config.frames(round(seconds * options.rate))
    frames = max(_LEAST_FRAMES, frames - frames % _MULTIPLE)
    spec: dict[str, Any] = {
        "rate": options.rate,
        "features": options.features,
        "mels": config.mels,
        "frames": frames,
        "seconds": round(frames * config.hop / options.rate, 4),
        "mean": 0.0,
        "std": 1.0,
    }
    mean, std = config.mean, config.std
    if options.normalize == "measured":
        values = [plain_spectrogram(Waves.of([wave]), spec) for wave in waves]
        whole = torch.cat(values).to(torch.float64)
        mean, std = float(whole.mean()), max(float(whole.std()), 1e-3)
    if mean is None or std is None:
        raise UserError(
            f"data.options.normalize: features {options.features!r} have no published statistics; "
            "use 'measured'"
        )
    return {**spec, "mean": round(mean, 5), "std": round(std * config.divisor, 5)}


def feature_config(spec: Mapping[str, Any]) -> FeatureConfig:
    """The features behind a spec's names."""
    return PRESETS[spec["features"]].at(int(spec["rate"]))


def plain_wave(waves: Waves, spec: Mapping[str, Any], count: int) -> Tensor:
    """The middle `count` samples at the spec's rate, float32 `[B, count]`."""
    middle = torch.full((len(waves),), 0.5, device=waves.data.device)
    return Segment(count).apply(waves, middle, int(spec["rate"]))


def plain_spectrogram(waves: Waves, spec: Mapping[str, Any]) -> Tensor:
    """The normalised log-mel spectrogram of the middle, `[B, 1, mels, frames]`."""
    config = feature_config(spec)
    wave = plain_wave(waves, spec, config.samples(int(spec["frames"])))
    return ((log_mel(wave, config) - spec["mean"]) / spec["std"]).unsqueeze(1)
