"""A small labelled set of real audio files: synthesised instruments and sung vowels.

Each recording holds one to three notes of one class at different pitches, through a random
microphone, with background noise of a random colour. Pitch, level, place, colour and noise differ
more between recordings of a class than classes do in their mean spectrum, so that a representation
has to learn how sounds are made. Voices sing on one side only: `train/` or `test/`. `labels.csv`
tells pitch class, vowel and speaker of each file, and is a manifest.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_audio.samples_sounds import CLASSES, INSTRUMENTS, RATE, Speaker, vowel
from ssl_core.errors import UserError
from ssl_core.rng import generator

TEST_SHARE = 0.2
DEFAULT_COUNT = 1600
SECONDS = (0.95, 1.25)
NOISE = (3.0, 20.0)
"""Signal-to-noise ratios, in decibels."""
COLOUR = 14.0
"""How far the microphone lifts or damps one end of the spectrum, in decibels."""
PITCHES = (110.0, 560.0)
SPEAKERS = {"train": 24, "test": 8}
NOTES = ("c", "cis", "d", "dis", "e", "f", "fis", "g", "gis", "a", "ais", "b")


@dataclass(frozen=True)
class Recording:
    """What one file holds."""

    wave: np.ndarray
    pitch: float
    """Of the first note, in hertz."""
    speaker: str


def write_samples(folder: Path, *, count: int = DEFAULT_COUNT, seed: int = 0) -> None:
    """Writes `count` WAV and FLAC files under `train/` and `test/`; same arguments, same sounds.

    One in ten is stereo at 22.05 kHz, the others are mono at 16 kHz. `folder` must be empty or
    new. Raises `UserError` for a count below 20 or a folder with content.
    """
    folder = Path(folder)
    if count < 20:
        raise UserError(f"count: {count} is too few; write at least 20 recordings")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"folder: {folder} is not empty; name a new one")
    rows = []
    tests = round(count * TEST_SHARE)
    for side, number in (("train", count - tests), ("test", tests)):
        for i in range(number):
            kind = CLASSES[i % len(CLASSES)]
            made = record(kind, side, i, seed=seed)
            suffix = "flac" if i // len(CLASSES) % 2 else "wav"
            name = f"{side}/{kind}/{side}-{i:05d}.{suffix}"
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(made.wave, suffix, stereo=i % 10 == i // 10 % 10))
            note = NOTES[round(12 * np.log2(made.pitch / 261.63)) % 12]
            sung = kind.removeprefix("vowel_") if kind.startswith("vowel_") else ""
            rows.append([name, kind, side, note, sung, made.speaker])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "split", "pitch_class", "vowel", "speaker"])
        writer.writerows(rows)


def record(kind: str, side: str, number: int, *, seed: int = 0) -> Recording:
    """Recording `number` of a side: notes, microphone, noise; float64 in -1..1 at `RATE`."""
    rng = generator("audio sample", seed, side, number)
    count = round(rng.uniform(*SECONDS) * RATE)
    notes = int(rng.integers(1, 4))
    wave, first, speaker = np.zeros(count), 0.0, ""
    voice = None
    if kind not in INSTRUMENTS:
        who = int(rng.integers(SPEAKERS[side]))
        speaker = f"{side}-{who:02d}"
        voice = Speaker.draw(generator("audio speaker", seed, side, who))
    for place in np.arange(notes) + rng.uniform(0, 0.3, notes):
        start = int(place / (notes + 0.3) * count)
        length = min(count - start, int(count / notes * rng.uniform(0.7, 1.0)))
        if voice is None:
            pitch = PITCHES[0] * (PITCHES[1] / PITCHES[0]) ** rng.uniform()
            sound = INSTRUMENTS[kind](pitch, length, rng)
        else:
            pitch = voice.pitch * 2 ** rng.uniform(-0.3, 0.3)
            sound = vowel(kind.removeprefix("vowel_"), voice, pitch, length, rng)
        wave[start : start + length] += rng.uniform(0.5, 1.0) * sound
        first = first or pitch
    return Recording(recorded(wave, rng), first, speaker)


def recorded(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through a random microphone, in random noise, at a random level."""
    wave = _coloured(wave, rng, COLOUR)
    noise = _coloured(rng.normal(size=len(wave)), rng, 2 * COLOUR)
    ratio = 10 ** (-rng.uniform(*NOISE) / 20)
    wave = wave / wave.std() + ratio * noise / noise.std()
    return wave / np.abs(wave).max() * 10 ** rng.uniform(-1.0, -0.02)


def _coloured(wave: np.ndarray, rng: np.random.Generator, decibels: float) -> np.ndarray:
    """A random smooth gain over an octave scale."""
    bins = np.fft.rfftfreq(len(wave), 1 / RATE)
    place = np.log2(1 + bins / 100) / np.log2(1 + RATE / 200)  # 0..1
    heights = rng.uniform(-decibels, decibels, 3) / np.array([1.0, 2.0, 3.0])
    gain = sum(h * np.cos(np.pi * (i + 1) * place) for i, h in enumerate(heights))
    coloured: np.ndarray = np.fft.irfft(np.fft.rfft(wave) * 10 ** (gain / 20), len(wave))
    return coloured


def encoded(wave: np.ndarray, suffix: str, *, stereo: bool) -> bytes:
    """A 16-bit "wav" or "flac" file of a wave at `RATE`; stereo ones are at 22.05 kHz."""
    import soundfile
    import torch

    from ssl_audio.resampling import resample

    rate, samples = RATE, wave[:, None]
    if stereo:
        rate = 22_050
        moved = resample(torch.from_numpy(wave)[None].float(), RATE, rate)[0].numpy()
        samples = np.stack([moved, 0.8 * moved], axis=1)
    stream = io.BytesIO()
    samples = np.rint(samples.clip(-1, 1) * 32767).astype(np.int16)
    soundfile.write(stream, samples, rate, format=suffix.upper(), subtype="PCM_16")
    return stream.getvalue()
