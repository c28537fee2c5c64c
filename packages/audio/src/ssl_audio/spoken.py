"""Spoken words as sample data, by the speech synthesiser espeak-ng.

One word a recording, by a speaker made of an accent, a voice, a pitch and a pace, through the
random microphone and noise of the other samples. Speakers talk on one side only: `train/` or
`test/`. Folders are named after the words; `labels.csv` tells word and speaker, and is a manifest.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_audio.samples import SPEAKERS, TEST_SHARE, encoded, recorded
from ssl_audio.samples_sounds import RATE
from ssl_core.environment import available_cores
from ssl_core.errors import UserError
from ssl_core.rng import generator

PROGRAM = "espeak-ng"
WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("yes", "no", "up", "down", "left", "right", "stop", "go", "water", "music"),
)
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
VOICES = (*(f"m{i}" for i in range(1, 8)), *(f"f{i}" for i in range(1, 5)))
PAUSE = (0.02, 0.15)
"""Seconds of silence before and after a word."""


@dataclass(frozen=True)
class Talker:
    """How one speaker talks: espeak-ng's accent with a voice, pitch 0..99, words a minute."""

    name: str
    voice: str
    pitch: int
    pace: int

    @classmethod
    def of(cls, side: str, number: int, *, seed: int) -> Talker:
        """Speaker `number` of a side."""
        rng = generator("audio talker", seed, side, number)
        voice = f"{rng.choice(ACCENTS)}+{rng.choice(VOICES)}"
        pitch, pace = int(rng.integers(25, 75)), int(rng.integers(120, 200))
        return cls(f"{side}-{number:02d}", voice, pitch, pace)


def write_spoken(folder: Path, *, count: int, seed: int = 0) -> None:
    """Writes `count` WAV and FLAC files of 20 words under `train/` and `test/`.

    Same arguments and same espeak-ng, same files. Raises `UserError` where espeak-ng is not
    installed, and for fewer recordings than words.
    """
    if shutil.which(PROGRAM) is None:
        raise UserError(
            f"kind: spoken samples need {PROGRAM}, which is not installed; apt-get install "
            f"{PROGRAM} (brew install {PROGRAM}), or leave --kind out"
        )
    if count < len(WORDS):
        raise UserError(f"count: {count} is too few; write at least {len(WORDS)} recordings")
    tests = round(count * TEST_SHARE)
    wanted = [("train", i) for i in range(count - tests)] + [("test", i) for i in range(tests)]
    # The synthesiser is a process of its own: threads wait for it.
    with ThreadPoolExecutor(available_cores()) as pool:
        rows = list(pool.map(lambda one: _write(Path(folder), *one, seed=seed), wanted))
    with (Path(folder) / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "split", "speaker"])
        writer.writerows(rows)


def _write(folder: Path, side: str, number: int, *, seed: int) -> list[str]:
    """One file; its row of the manifest."""
    rng = generator("audio word", seed, side, number)
    word = WORDS[number % len(WORDS)]
    talker = Talker.of(side, int(rng.integers(SPEAKERS[side])), seed=seed)
    before, after = (np.zeros(round(rng.uniform(*PAUSE) * RATE)) for _ in range(2))
    wave = recorded(np.concatenate([before, spoken(word, talker), after]), rng)
    suffix = "flac" if number // len(WORDS) % 2 else "wav"
    name = f"{side}/{word}/{side}-{number:05d}.{suffix}"
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(wave, suffix, stereo=False))
    return [name, word, side, talker.name]


def spoken(word: str, talker: Talker) -> np.ndarray:
    """A word as float64 in -1..1 at `RATE`."""
    import soundfile
    import torch

    from ssl_audio.resampling import resample

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "word.wav")
        voice = ["-v", talker.voice, "-p", str(talker.pitch), "-s", str(talker.pace)]
        made = subprocess.run(
            [PROGRAM, *voice, "-w", str(path), word], capture_output=True, text=True, check=False
        )
        if made.returncode or not path.is_file():
            raise UserError(f"{PROGRAM} failed on {word!r}: {made.stderr.strip()[:200]}")
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wave = torch.from_numpy(samples[:, 0].copy())[None]
    moved: np.ndarray = resample(wave, rate, RATE)[0].double().numpy()
    return moved
