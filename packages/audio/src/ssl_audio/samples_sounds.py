"""Five synthesised instruments and five sung vowels, as plain formulas on NumPy arrays.

Plucked strings after Karplus & Strong (1983), bells and brass by frequency modulation (Chowning
1973), vowels as harmonics shaped by formants (Peterson & Barney 1952).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RATE = 16_000
Draw = np.random.Generator

FORMANTS = {
    "a": (780, 1250, 2550),
    "e": (480, 1950, 2600),
    "i": (290, 2300, 3050),
    "o": (490, 880, 2450),
    "u": (320, 800, 2250),
}
"""First three resonances of a middle voice, in hertz."""
_WIDTHS = (80.0, 110.0, 160.0)


@dataclass(frozen=True)
class Speaker:
    """One voice: its pitch in hertz, how far its formants lie from the middle voice, breath."""

    pitch: float
    scale: float
    breath: float

    @classmethod
    def draw(cls, rng: Draw) -> Speaker:
        scale = rng.uniform(0.88, 1.2)
        pitch = 100 * 2 ** ((scale - 0.88) * 2.6 + rng.uniform(0, 0.6))
        return cls(pitch, scale, rng.uniform(0.0, 0.03))


def pluck(pitch: float, count: int, rng: Draw) -> np.ndarray:
    """A string: noise going round a delay line that averages neighbours."""
    period = max(2, round(RATE / pitch))
    line = rng.uniform(-1, 1, period)
    bright = rng.uniform(0.3, 0.7)
    rows = [line]
    for _ in range(-(-count // period) - 1):
        before = np.concatenate([rows[-1][-1:], rows[-1][:-1]])
        rows.append(0.996 * (bright * rows[-1] + (1 - bright) * before))
    return np.concatenate(rows)[:count]


def bell(pitch: float, count: int, rng: Draw) -> np.ndarray:
    """Inharmonic frequency modulation that dies away."""
    time = np.arange(count) / RATE
    fade = np.exp(-time * rng.uniform(2.0, 5.0))
    modulator = np.sin(2 * np.pi * 1.41 * pitch * time)
    return fade * np.sin(2 * np.pi * pitch * time + rng.uniform(3, 6) * fade * modulator)


def brass(pitch: float, count: int, rng: Draw) -> np.ndarray:
    """Harmonic frequency modulation whose brightness follows its loudness."""
    time = np.arange(count) / RATE
    rise = np.minimum(time / rng.uniform(0.04, 0.12), 1)
    loud = rise * np.minimum((count / RATE - time) / 0.08, 1)
    phase = 2 * np.pi * pitch * time + 0.3 * np.sin(2 * np.pi * 5.5 * time)
    return loud * np.sin(phase + rng.uniform(2.0, 4.0) * loud * np.sin(phase))


def reed(pitch: float, count: int, rng: Draw) -> np.ndarray:
    """Odd harmonics with a tremolo, steady from end to end."""
    time = np.arange(count) / RATE
    edge = np.minimum(np.minimum(time, count / RATE - time) / 0.03, 1)
    tremolo = 1 + 0.35 * np.sin(2 * np.pi * rng.uniform(5, 9) * time)
    orders = np.arange(1, 14, 2)
    orders = orders[orders * pitch < 0.48 * RATE]
    parts = np.sin(2 * np.pi * pitch * orders[:, None] * time) / orders[:, None] ** 0.8
    return edge * tremolo * parts.sum(0)


def burst(pitch: float, count: int, rng: Draw) -> np.ndarray:
    """A volley of short noises around eight times the pitch."""
    time = np.arange(count) / RATE
    beats = rng.uniform(9, 16)
    envelope = np.exp(-((time * beats) % 1) * rng.uniform(5, 9))
    spectrum = np.fft.rfft(rng.normal(size=count))
    bins = np.fft.rfftfreq(count, 1 / RATE)
    octaves = np.log2(np.maximum(bins, 20) / min(8 * pitch, 5000))
    return envelope * np.fft.irfft(spectrum * np.exp(-0.5 * (octaves / 0.7) ** 2), count)


def vowel(name: str, speaker: Speaker, pitch: float, count: int, rng: Draw) -> np.ndarray:
    """A sung vowel: every harmonic as loud as the formants make it, with vibrato and breath."""
    time = np.arange(count) / RATE
    wobble = 1 + 0.012 * np.sin(2 * np.pi * rng.uniform(4, 7) * time + rng.uniform(0, 6))
    slide = 2 ** (rng.uniform(-0.12, 0.12) * time)
    turn = np.exp(2j * np.pi * np.cumsum(pitch * wobble * slide) / RATE)
    orders = np.arange(1, int(0.45 * RATE / pitch))
    weights = _formants(name, speaker.scale, orders * pitch) / orders
    wave, wheel = np.zeros(count), np.ones(count, complex)
    for weight in weights:
        wheel = wheel * turn
        wave += weight * wheel.imag
    edge = np.minimum(np.minimum(time, count / RATE - time) / 0.05, 1)
    return edge * (wave / np.abs(wave).max() + speaker.breath * rng.normal(size=count))


def _formants(name: str, scale: float, hertz: np.ndarray) -> np.ndarray:
    gains = [
        1 / np.sqrt(1 + ((hertz - scale * centre) / width) ** 2)
        for centre, width in zip(FORMANTS[name], _WIDTHS, strict=True)
    ]
    total: np.ndarray = gains[0] + 0.6 * gains[1] + 0.3 * gains[2]
    return total


INSTRUMENTS: dict[str, Callable[[float, int, Draw], np.ndarray]] = {
    "pluck": pluck,
    "bell": bell,
    "brass": brass,
    "reed": reed,
    "burst": burst,
}
CLASSES = (*INSTRUMENTS, *(f"vowel_{name}" for name in FORMANTS))
